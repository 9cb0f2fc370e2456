import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../../src/log.js";
import { createMachine } from "../../src/vm/guest-machine.js";
import type { MachineSaved } from "../../src/vm/machine.js";
import { type Guest, startGuest, succeeded } from "./support.js";

let guest: Guest;
beforeAll(async () => {
	guest = await startGuest();
});
afterAll(() => guest.dispose());

/** A saved state held in memory, to be restored any number of times. */
interface Kept extends Omit<MachineSaved, "state"> {
	readonly bytes: Uint8Array;
}

async function keep(): Promise<Kept> {
	return guest.machine.save(async ({ state, ...rest }) => {
		const chunks: Uint8Array[] = [];
		for await (const chunk of state) chunks.push(chunk);
		return { ...rest, bytes: Buffer.concat(chunks) };
	});
}

function saved({ bytes, ...rest }: Kept): MachineSaved {
	return {
		...rest,
		state: (async function* () {
			yield bytes;
		})(),
	};
}

describe("a saved machine", () => {
	it("comes back with its files, variables and running processes", async () => {
		await guest.run("echo kept >/srv/f 2>/dev/null || { mkdir -p /srv; echo kept >/srv/f; }; v=1");
		await guest.run("(while :; do date +%s%N >/tmp/beat; sleep 0.1; done) & beat=$!");
		const snapshot = await keep();
		expect(snapshot.bytes.length).toBe(snapshot.stateBytes);
		await guest.run("kill $beat; rm -rf /srv /bin/ls; v=2");
		await guest.machine.restore(saved(snapshot));
		expect(await guest.run('cat /srv/f; echo "$v"; kill -0 $beat && echo running')).toMatchObject(
			succeeded("kept\n1\nrunning\n"),
		);
		// The file is empty for a moment whenever it is written.
		const moving =
			'a=$(cat /tmp/beat); until b=$(cat /tmp/beat); [ -n "$b" ] && [ "$a" != "$b" ]; do :; done; echo moving';
		expect((await guest.run(moving)).stdout).toBe("moving\n");
		await guest.run("kill $beat");
	});

	it("wakes with the host's clock, and with other random numbers each time", async () => {
		const snapshot = await keep();
		const seen = new Set<string>();
		for (let i = 0; i < 3; i++) {
			await guest.machine.restore(saved(snapshot));
			const before = Date.now();
			const { stdout } = await guest.run("adjtimex | grep tv_; head -c 16 /dev/urandom | od -An -tx1");
			const after = Date.now();
			const [, seconds, micros, random] = /tv_sec: +(\d+)\s+time.tv_usec: +(\d+)\s+(.*)/.exec(stdout) ?? [];
			const guestMs = Number(seconds) * 1000 + Number(micros) / 1000;
			expect(guestMs).toBeGreaterThanOrEqual(before - 100);
			expect(guestMs).toBeLessThanOrEqual(after + 100);
			seen.add(String(random));
		}
		expect(seen.size).toBe(3);
	});

	it("can be taken while a command runs, which the restored machine stops", async () => {
		let snapshot: Kept | undefined;
		const running = guest.run("echo begun; sleep 3; echo over", {
			onOutput: () => {
				if (snapshot === undefined) void keep().then((kept) => (snapshot = kept));
			},
		});
		expect(await running).toMatchObject(succeeded("begun\nover\n"));
		expect(snapshot).toBeDefined();
		await guest.machine.restore(saved(snapshot as Kept));
		expect(await guest.run("echo next")).toMatchObject({ stdout: "next\n" });
	});

	it("starts a machine that never ran before", async () => {
		await guest.run("echo elsewhere >/tmp/where");
		const snapshot = await keep();
		const other = createMachine({
			image: guest.image,
			memoryMiB: 128,
			log: silentLog,
			consoleLogPath: `${guest.home}/other.log`,
		});
		try {
			await other.restore(saved(snapshot));
			const result = await other.run("cat /tmp/where", { timeoutMs: 10_000 });
			expect(Buffer.from(result.stdout.head).toString()).toBe("elsewhere\n");
		} finally {
			await other.stop();
		}
	});

	it("is refused when it belongs to another image, memory size or emulator, and the machine goes on", async () => {
		await guest.run("still=here");
		const snapshot = await keep();
		for (const [wrong, message] of [
			[{ imageDigest: "0".repeat(64) }, /another build of image tiny/],
			[{ imageDigest: "0".repeat(64), imageName: "base" }, /is of image base/],
			[{ memoryMiB: 256 }, /256 MiB/],
			[{ emulatorVersion: "0.1.0" }, /v86 0\.1\.0/],
		] as const) {
			await expect(guest.machine.restore(saved({ ...snapshot, ...wrong }))).rejects.toMatchObject({
				code: "mismatch",
				message: expect.stringMatching(message),
			});
		}
		expect(await guest.run('echo "$still"')).toMatchObject(succeeded("here\n"));
	});

	it("rejects a call that was in flight when the machine was restored", async () => {
		const snapshot = await keep();
		let restored: Promise<void> | undefined;
		const running = guest.run("echo begun; sleep 30", {
			onOutput: () => {
				restored ??= guest.machine.restore(saved(snapshot));
			},
		});
		await expect(running).rejects.toMatchObject({ code: "cancelled" });
		await restored;
		expect(await guest.run("echo next")).toMatchObject(succeeded("next\n"));
	});
});

describe("an idle machine", () => {
	it("is paused when nothing runs, and wakes with the right clock for the next call", async () => {
		await guest.run("true");
		await expect.poll(() => guest.machine.state, { timeout: 5000 }).toBe("paused");
		const { stdout } = await guest.run("date +%s");
		expect(Math.abs(Number(stdout) - Date.now() / 1000)).toBeLessThan(1.2);
	});

	it("goes on while a command's background process runs, and is paused when that ends", async () => {
		await guest.run("(sleep 1.5; echo done >/tmp/finished) &");
		expect(guest.machine.state).toBe("running");
		await expect.poll(() => guest.machine.state, { timeout: 10_000 }).toBe("paused");
		expect(await guest.run("cat /tmp/finished")).toMatchObject(succeeded("done\n"));
	});
});
