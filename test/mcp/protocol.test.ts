import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Connection, connect, newHome, removeHome } from "./support.js";

let home: string;
let server: Connection;
beforeAll(async () => {
	home = newHome(inject("templateHome"));
	server = await connect({ home });
});
afterAll(async () => {
	await server.close();
	removeHome(home);
});

describe("tools/list", () => {
	it("names the six tools in at most 8 KB, schemas and annotations included", async () => {
		const answer = await server.client.listTools();
		expect(answer.tools.map(({ name }) => name)).toEqual([
			"bash",
			"read_file",
			"write_file",
			"snapshot",
			"restore",
			"forward_port",
		]);
		expect(Buffer.byteLength(JSON.stringify(answer))).toBeLessThanOrEqual(8192);
		for (const tool of answer.tools) {
			expect(tool).toMatchObject({ title: expect.any(String), description: expect.any(String) });
			expect(tool.inputSchema).toMatchObject({ type: "object", additionalProperties: false });
			expect(tool.outputSchema).toMatchObject({ type: "object", required: expect.any(Array) });
			expect(tool.annotations).toMatchObject({ readOnlyHint: tool.name === "read_file" });
		}
	});

	it("has exactly the promised fields", async () => {
		const { tools } = await server.client.listTools();
		const fields = tools.map(({ inputSchema, outputSchema }) => [
			Object.keys(inputSchema.properties ?? {}).join(),
			Object.keys(outputSchema?.properties ?? {}).join(),
		]);
		expect(fields).toEqual([
			["command,timeout_ms", "stdout,stderr,exit_code,duration_ms,cwd,timed_out,truncated"],
			["path,offset,limit,encoding", "content,encoding,size_bytes,truncated"],
			["path,content,encoding,mode,append", "path,size_bytes"],
			["name,description", "snapshot,size_bytes,duration_ms"],
			["snapshot", "snapshot,duration_ms"],
			["port", "url"],
		]);
	});

	it("comes with instructions whose first 512 characters hold the workflow", () => {
		const start = server.client.getInstructions()?.slice(0, 512) ?? "";
		for (const word of ["bash", "write_file", "read_file", "snapshot", "restore", "background"])
			expect(start).toContain(word);
	});

	it("comes with instructions that say what the machine reaches", () => {
		expect(server.client.getInstructions()).toMatch(
			/\nThe machine reaches public addresses, and nothing else\. forward_port opens one of its ports on the host\.$/,
		);
	});

	it("is answered before any machine exists, and so is an unknown tool", async () => {
		await expect(server.call("shell", {})).rejects.toThrow(/there is no tool "shell"; there are bash, read_file/);
	});
});

describe("bad input", () => {
	const path4096 = `/${"a".repeat(4096)}`;
	const cases: [tool: string, input: Record<string, unknown>, expected: RegExp][] = [
		["bash", {}, /invalid-argument.*command: /],
		["bash", { command: "" }, /the command is empty/],
		["bash", { command: 5 }, /command: .*expected string/],
		[
			"bash",
			{ command: "true", timout_ms: 5 },
			/unknown field "timout_ms"[\s\S]*the fields of bash are command, timeout_ms/,
		],
		["bash", { command: "true", timeout_ms: 0 }, /timeout_ms: a whole number of milliseconds from 1 to 600000/],
		["bash", { command: "true", timeout_ms: 1e12 }, /timeout_ms: a whole number of milliseconds/],
		["bash", { command: "true", timeout_ms: 1.5 }, /timeout_ms: a whole number/],
		["bash", { command: "true", timeout_ms: "5" }, /timeout_ms: a whole number/],
		["bash", { command: "a\0b" }, /the command holds a NUL character/],
		["bash", { command: `: ${"x".repeat(2 ** 20)}` }, /the command has 1048578 bytes, at most 1048576/],
		["read_file", { path: "" }, /the path is empty/],
		["read_file", { path: "/a\0b" }, /the path holds a NUL character/],
		["read_file", { path: path4096 }, /the path has 4097 bytes, at most 4095/],
		["read_file", { path: "/etc/passwd", limit: 0 }, /limit: a whole number of bytes from 1 to 16777216/],
		["read_file", { path: "/etc/passwd", limit: 1e9 }, /limit: a whole number of bytes from 1 to 16777216/],
		["read_file", { path: "/etc/passwd", offset: -1 }, /offset: a whole number/],
		["read_file", { path: "/etc/passwd", encoding: "latin1" }, /encoding: /],
		["read_file", { path: "/nowhere/at/all" }, /guest-file.*\/nowhere\/at\/all: No such file/],
		["read_file", { path: "/etc" }, /guest-file.*is a directory/i],
		["read_file", { path: "/dev/null" }, /guest-file.*\/dev\/null/],
		["write_file", { path: "/tmp/x" }, /content: /],
		["write_file", { path: "/tmp/x", content: "?", encoding: "base64" }, /content is not base64/],
		["write_file", { path: "/tmp/x", content: "a", mode: "rwx" }, /octal permissions as text are needed/],
		["write_file", { path: "/tmp/x", content: "a", mode: 755 }, /mode: /],
		["write_file", { path: "/tmp/x\0y", content: "a" }, /NUL/],
		["write_file", { path: "/etc/passwd/x", content: "a" }, /guest-file.*\/etc\/passwd\/x/],
		["write_file", { path: "/tmp", content: "a" }, /guest-file.*is a directory/i],
		["write_file", { path: "/proc/version", content: "a" }, /guest-file/],
		["snapshot", { name: "a/b" }, /name: 1 to 64 of/],
		["snapshot", { name: "x".repeat(65) }, /name: 1 to 64 of/],
		["snapshot", { name: "s-20260101-000000-0123abcd" }, /can't be a snapshot's name/],
		["snapshot", { description: "x".repeat(1001) }, /description: /],
		["restore", {}, /snapshot: /],
		["restore", { snapshot: "unknown" }, /not-found.*there is no snapshot "unknown"/],
		["restore", { snapshot: "../../etc/passwd" }, /not-found/],
		["forward_port", {}, /port: a port from 1 to 65535 is needed/],
		["forward_port", { port: 0 }, /port: a port from 1 to 65535/],
		["forward_port", { port: 65_536 }, /port: a port from 1 to 65535/],
		["forward_port", { port: "80" }, /port: a port from 1 to 65535/],
		["forward_port", { port: 80, host: "0.0.0.0" }, /unknown field "host"[\s\S]*the fields of forward_port are port/],
	];
	for (const [tool, input, expected] of cases) {
		it(`is refused by ${tool}: ${JSON.stringify(input).slice(0, 80)}`, async () => {
			const { text, isError } = await server.call(tool, input);
			expect(text).toMatch(expected);
			expect(isError).toBe(true);
		});
	}

	it("leaves the machine as it was", async () => {
		expect(await server.bash("ls /tmp/x 2>/dev/null; echo fine")).toBe("fine\n");
	});
});

describe("bash", () => {
	it("answers with every promised field", async () => {
		const { structured, isError } = await server.call("bash", { command: "cd /etc; echo out; echo err >&2; (exit 3)" });
		expect(structured).toEqual({
			stdout: "out\n",
			stderr: "err\n",
			exit_code: 3,
			duration_ms: expect.any(Number),
			cwd: "/etc",
			timed_out: false,
			truncated: false,
		});
		expect(isError).toBe(false);
	});

	it("shows invalid UTF-8 as U+FFFD", async () => {
		expect(await server.bash("printf 'a\\377b'")).toBe("a\ufffdb");
	});

	it("keeps head and tail of long output and says how much is missing", async () => {
		const { structured, text } = await server.call("bash", { command: "seq 1 40000" });
		const stdout = String(structured?.stdout);
		expect(stdout.startsWith("1\n2\n3\n")).toBe(true);
		expect(stdout.endsWith("\n39999\n40000\n")).toBe(true);
		expect(structured?.truncated).toBe(true);
		const total = Array.from({ length: 40_000 }, (_, i) => `${i + 1}\n`).join("").length;
		const missing = Number(/\[\.\.\. (\d+) bytes left out \.\.\.\]/.exec(stdout)?.[1]);
		expect(missing).toBe(total - 32 * 1024);
		expect(text).toContain(`${missing} bytes of stdout are left out`);
	});

	it("stops at its timeout with what was printed so far", async () => {
		const { structured, text, isError } = await server.call("bash", {
			command: "echo begun; sleep 60",
			timeout_ms: 700,
		});
		expect(structured).toMatchObject({ stdout: "begun\n", timed_out: true });
		expect(text).toContain("Timed out: the command was stopped after 700 ms");
		expect(isError).toBe(false);
		expect(await server.bash("echo next")).toBe("next\n");
	});

	it("sends its output as progress to a client that asked", async () => {
		const heard: { progress: number; message?: string }[] = [];
		const command = "for i in 1 2 3 4; do echo line $i; sleep 0.4; done";
		await server.call(
			"bash",
			{ command },
			{ onprogress: (progress) => heard.push(progress as (typeof heard)[number]) },
		);
		const shown = heard.map(({ message }) => message).join("");
		expect(shown).toContain("line 1\n");
		expect(shown).toContain("line 3\n");
		expect(heard.length).toBeGreaterThanOrEqual(3);
		for (const [i, { progress }] of heard.entries()) expect(progress).toBeGreaterThan(heard[i - 1]?.progress ?? -1);
	});

	it("is stopped when the client cancels the call, and the shell goes on", async () => {
		await server.bash("cancelled=no");
		const cancel = new AbortController();
		const call = server.call(
			"bash",
			{ command: "echo begun; sleep 60; cancelled=yes" },
			{ signal: cancel.signal, onprogress: () => cancel.abort() },
		);
		await expect(call).rejects.toThrow();
		const startedAt = performance.now();
		expect(await server.bash("echo $cancelled; ps | grep -c '[s]leep 60' || true")).toBe("no\n0\n");
		expect(performance.now() - startedAt).toBeLessThan(8000);
	});
});

describe("files", () => {
	it("come back as they were written, text and bytes", async () => {
		const content = "grüße\n\t$(not run) `nor this` \\ 'quotes' \"too\"\n\u0000 €😀";
		await server.call("write_file", { path: "/tmp/new/folder/text", content });
		expect((await server.call("read_file", { path: "/tmp/new/folder/text" })).structured).toEqual({
			content,
			encoding: "utf8",
			size_bytes: Buffer.byteLength(content),
			truncated: false,
		});
		const bytes = Buffer.from([0, 1, 2, 0xff, 0xfe]).toString("base64");
		const written = await server.call("write_file", {
			path: "/tmp/bytes",
			content: bytes,
			encoding: "base64",
			mode: "0750",
		});
		expect(written.structured).toEqual({ path: "/tmp/bytes", size_bytes: 5 });
		expect((await server.call("read_file", { path: "/tmp/bytes" })).structured).toMatchObject({
			content: bytes,
			encoding: "base64",
		});
		expect(await server.bash("stat -c %a /tmp/bytes")).toBe("750\n");
		await server.call("write_file", { path: "/tmp/bytes", content: "more", append: true });
		expect(await server.bash("wc -c </tmp/bytes; stat -c %a /tmp/bytes")).toBe("9\n750\n");
	});

	it("are read in parts that fit together", async () => {
		await server.call("write_file", { path: "/tmp/parts", content: "€".repeat(1000) });
		const first = await server.call("read_file", { path: "/tmp/parts", limit: 1000 });
		expect(first.structured).toMatchObject({ content: "€".repeat(333), truncated: true, size_bytes: 3000 });
		expect(first.text).toContain("go on with offset 999");
	});

	it("of 16 MiB go in and out whole in one call", async () => {
		const content = Buffer.alloc(16 * 2 ** 20, "0123456789abcdef\xff", "latin1").toString("base64");
		await server.call("write_file", { path: "/tmp/big", content, encoding: "base64" });
		const { structured } = await server.call("read_file", { path: "/tmp/big", limit: 16 * 2 ** 20 });
		expect(structured?.content === content).toBe(true);
		const more = await server.call("write_file", { path: "/tmp/big", content: "a".repeat(16 * 2 ** 20 + 1) });
		expect(more.text).toMatch(/16777217 bytes, at most 16777216/);
		await server.bash("rm /tmp/big");
	});
});
