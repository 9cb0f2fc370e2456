import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Guest, startGuest, succeeded } from "./support.js";

let guest: Guest;
beforeAll(async () => {
	guest = await startGuest();
});
afterAll(() => guest.dispose());

describe("the persistent shell", () => {
	it("keeps the current folder, variables, functions and the umask between commands", async () => {
		await guest.run("mkdir -p /tmp/a && cd /tmp/a; v='a  b'; f() { echo \"f:$1\"; }; umask 027");
		expect(await guest.run('pwd; echo "$v"; f x; umask')).toMatchObject(succeeded("/tmp/a\na  b\nf:x\n0027\n"));
		expect(await guest.run("cd /; umask 022")).toMatchObject({ cwd: "/" });
	});

	it("keeps standard output and standard error apart and answers any exit code", async () => {
		expect(await guest.run("echo out; echo err >&2; (exit 7)")).toMatchObject({
			stdout: "out\n",
			stderr: "err\n",
			exitCode: 7,
		});
	});

	it("gives commands an empty standard input", async () => {
		expect(await guest.run('cat; read x; echo "[$x] $?"')).toMatchObject({ stdout: "[] 1\n", exitCode: 0 });
	});

	it("carries quotes, heredocs, unicode and backslashes as they are", async () => {
		const script = [
			`printf '%s\\n' "it's" 'a "b" c' \\$HOME '\\\\' "\`echo tick\`"`,
			"cat <<'EOF'",
			"raw $HOME `x` \\ 'q' \"d\" äöü 🦊",
			"EOF",
			"cat <<EOF",
			"$((1+2)) $(echo sub)",
			"EOF",
		].join("\n");
		expect(await guest.run(script)).toMatchObject(
			succeeded('it\'s\na "b" c\n$HOME\n\\\\\ntick\nraw $HOME `x` \\ \'q\' "d" äöü 🦊\n3 sub\n'),
		);
	});

	it("answers `exit 3` with 3, and the next command runs in a new shell and says so", async () => {
		await guest.run("kept=1; cd /tmp");
		expect(await guest.run("exit 3")).toMatchObject({ exitCode: 3, notices: [expect.stringContaining("shell ended")] });
		expect(await guest.run('echo "[$kept]"')).toMatchObject({
			stdout: "[]\n",
			notices: [expect.stringContaining("new shell")],
		});
		expect(await guest.run("true")).toMatchObject({ exitCode: 0, notices: [] });
	});

	it("goes on after a syntax error", async () => {
		await guest.run("sticky=1");
		expect(await guest.run("if")).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("syntax error") });
		expect(await guest.run('echo "$sticky"')).toMatchObject({ exitCode: 0 });
	});

	it("survives a command that closes its output or leaves a process holding it", async () => {
		expect(await guest.run("exec >&- 2>&-; :")).toMatchObject({ exitCode: 0 });
		const before = performance.now();
		expect(await guest.run("(sleep 20; echo late) & echo now")).toMatchObject({ stdout: "now\n" });
		expect(performance.now() - before).toBeLessThan(10_000);
		expect(await guest.run("echo next")).toMatchObject(succeeded("next\n"));
		await guest.run("kill %1 2>/dev/null; kill $! 2>/dev/null; true");
	});

	it("gives a command nothing of what an earlier one left running prints", async () => {
		await guest.run("(sleep 0.2; echo late; echo late >&2) &");
		expect(await guest.run("sleep 0.6; echo mine")).toMatchObject(succeeded("mine\n"));
		expect(await guest.run("echo next")).toMatchObject(succeeded("next\n"));
	});

	it("gives a command nothing of what a stopped one had printed and nobody had taken", async () => {
		expect(await guest.run("yes", { timeoutMs: 300, maxOutputBytes: 1024 })).toMatchObject({ timedOut: true });
		expect(await guest.run("echo next")).toMatchObject(succeeded("next\n"));
	});

	it("tells what a command that was killed died of", async () => {
		expect(await guest.run("sh -c 'kill -9 $$'")).toMatchObject({ exitCode: 137 });
	});

	it("keeps the head and the tail of long output and counts the rest", async () => {
		const { machine } = guest;
		const result = await machine.run("seq 1 200000", { timeoutMs: 60_000, maxOutputBytes: 1000 });
		expect(Buffer.from(result.stdout.head).toString()).toMatch(/^1\n2\n3\n/);
		expect(Buffer.from(result.stdout.tail).toString()).toMatch(/199999\n200000\n$/);
		expect(result.stdout.head.length + result.stdout.tail.length + result.stdout.omittedBytes).toBe(1_288_895);
	});

	it("delivers output while the command runs", async () => {
		let seenWhileRunning = "";
		let finished = false;
		const running = guest.run("echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; rm /tmp/go; echo second", {
			onOutput: (_stream, bytes) => {
				if (!finished) seenWhileRunning += Buffer.from(bytes).toString();
				if (seenWhileRunning === "first\n") void guest.machine.writeFile("/tmp/go", new Uint8Array(0));
			},
		});
		expect(await running).toMatchObject(succeeded("first\nsecond\n"));
		finished = true;
		expect(seenWhileRunning.startsWith("first\n")).toBe(true);
	});

	it("refuses a command with a NUL or above 1 MiB before it reaches the guest", async () => {
		await expect(guest.run("echo \0")).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(guest.run(`#${"x".repeat(1024 * 1024)}`)).rejects.toMatchObject({ code: "invalid-argument" });
		expect(await guest.run(`: ${"x".repeat(1024 * 1024 - 2)}`)).toMatchObject({ exitCode: 0 });
	});

	it("runs concurrent commands one after the other, in order", async () => {
		const results = await Promise.all([1, 2, 3].map((n) => guest.run(`n=$((n+${n})); echo ${n}`)));
		expect(results.map((result) => result.stdout)).toEqual(["1\n", "2\n", "3\n"]);
	});
});

describe("a command that takes too long", () => {
	it.each([
		["sleeps", "sleep 100"],
		["loops over children", "while :; do sleep 1; done"],
		["loops in the shell itself", "while :; do :; done"],
		["runs a pipeline", "yes | cat >/dev/null"],
		["ignores signals", "sh -c \"trap '' INT TERM; while :; do sleep 1; done\""],
		["loops in a function", "g() { while :; do sleep 1; done; }; g"],
	])("is stopped, with the shell's state kept, when it %s", async (_what, command) => {
		await guest.run("cd /tmp; mark=here");
		const result = await guest.run(`echo begun; ${command}`, { timeoutMs: 500 });
		expect(result).toMatchObject({ timedOut: true, stdout: "begun\n", exitCode: 124 });
		expect(await guest.run('echo "$mark $PWD"')).toMatchObject(succeeded("here /tmp\n"));
	});

	it("answers 124 where the shell ends with it, and the next command runs in a new shell", async () => {
		expect(await guest.run("exec sleep 100", { timeoutMs: 300 })).toMatchObject({ timedOut: true, exitCode: 124 });
		expect(await guest.run("echo next")).toMatchObject({
			stdout: "next\n",
			notices: [expect.stringMatching(/new shell/)],
		});
	});

	it("leaves alone what earlier commands left running", async () => {
		await guest.run("sleep 50 & background=$!");
		await guest.run("sleep 100", { timeoutMs: 300 });
		expect(await guest.run("kill -0 $background && echo alive; kill $background")).toMatchObject({ stdout: "alive\n" });
	});

	it("is stopped just the same when the caller gives up", async () => {
		const abort = new AbortController();
		const running = guest.run("echo begun; sleep 100", {
			signal: abort.signal,
			onOutput: () => abort.abort(),
		});
		expect(await running).toMatchObject({ cancelled: true, timedOut: false, stdout: "begun\n" });
	});
});

describe("the environment of a new shell", () => {
	/** What `command` says in a shell that starts with this /etc/environment. */
	async function inNewShell(environment: string | Uint8Array, command: string): Promise<string> {
		await guest.machine.writeFile("/etc/environment", Buffer.from(environment));
		await guest.run("exit");
		return (await guest.run(command)).stdout;
	}
	afterAll(async () => {
		await inNewShell("", ":");
	});

	it("has the variables of /etc/environment, which take the place of the built-in ones", async () => {
		const lines = [
			"# a comment",
			"PLAIN=a b#c",
			"\texport  SAID=x=y",
			`ONE="it's"`,
			"TWO='\"q\"'",
			"NONE=",
			"PAGER=less",
		];
		const said = await inNewShell(
			[...lines, "PATH=/opt/bin:/bin:/usr/bin"].join("\n"),
			`printf '%s|' "$PLAIN" "$SAID" "$ONE" "$TWO" "\${NONE-unset}" "$PAGER" "$PATH" "$HOME"`,
		);
		expect(said).toBe(`a b#c|x=y|it's|"q"||less|/opt/bin:/bin:/usr/bin|/root|`);
	});

	it("takes the last of several values", async () => {
		expect(await inNewShell("TWICE=1\nTWICE=2\n", "env | grep ^TWICE=")).toBe("TWICE=2\n");
	});

	it("ignores lines that set no variable", async () => {
		const said = await inNewShell("1A=1\nA-B=1\n=1\nnothing\nSP ACE=1\nNUL=a\0b\nGOOD=yes\n", "env");
		expect(said).toContain("GOOD=yes\n");
		expect(said).not.toMatch(/^(1A|A-B|nothing|SP|NUL|=)/m);
	});

	it("starts in spite of a file that is too long, has too much in it, or is none", async () => {
		const many = Array.from({ length: 5000 }, (_, n) => `V${n}=${n}\n`).join("");
		expect(await inNewShell(many, "env | grep -c ^V")).toBe("310\n");
		const long = `LONG=${"x".repeat(150_000)}\nFITS=${"y".repeat(1000)}\nCUT=${"z".repeat(100_000)}`;
		expect(await inNewShell(long, 'echo "${#LONG} ${#FITS} ${#CUT}"')).toBe("0 1000 0\n");
		await guest.run("rm /etc/environment; mkfifo /etc/environment; exit");
		expect(await guest.run('echo "$HOME"')).toMatchObject({ stdout: "/root\n" });
		await guest.run("rm /etc/environment; mkdir /etc/environment; exit");
		expect(await guest.run('echo "$HOME"; rmdir /etc/environment')).toMatchObject({ stdout: "/root\n" });
	});
});
