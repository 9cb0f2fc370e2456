import { spawn } from "node:child_process";
import { MAX_PING_PROGRAMS } from "../limits.js";

export type PingOutcome =
	| { readonly kind: "reply" }
	| { readonly kind: "no-reply" }
	/** No ping program, or too many of them at work. */
	| { readonly kind: "unavailable" };

const WAIT_SECONDS = 2;
/** The program is ended after this, whatever it does. */
const KILL_MS = 4000;

let running = 0;

/**
 * One echo request by the host's `ping`, as an unprivileged process may not send ICMP on every system. All of them exit
 * with 0 if a reply came; on Windows also for "host unreachable", where only a reply's line names a time to live.
 */
export function ping(
	address: string,
	program = "ping",
	platform: NodeJS.Platform = process.platform,
): Promise<PingOutcome> {
	if (running >= MAX_PING_PROGRAMS) return Promise.resolve({ kind: "unavailable" });
	running += 1;
	return new Promise<PingOutcome>((resolve) => {
		const child = spawn(program, pingArguments(address, platform), {
			stdio: ["ignore", "pipe", "ignore"],
			timeout: KILL_MS,
			killSignal: "SIGKILL",
			windowsHide: true,
		});
		let sawTimeToLive = false;
		child.stdout.on("data", (bytes: Buffer) => {
			sawTimeToLive ||= /ttl=/i.test(bytes.toString("latin1"));
		});
		child.on("error", () => resolve({ kind: "unavailable" }));
		child.on("close", (code) => {
			const replied = code === 0 && (platform !== "win32" || sawTimeToLive);
			// 2 and above: the program's own failure, such as a missing privilege or no route.
			resolve({ kind: replied ? "reply" : "no-reply" });
		});
	}).finally(() => {
		running -= 1;
	});
}

/** `address` is a dotted quad that we wrote ourselves, so it can't be taken for an option. */
export function pingArguments(address: string, platform: NodeJS.Platform): string[] {
	switch (platform) {
		case "win32":
			return ["-n", "1", "-w", String(WAIT_SECONDS * 1000), address];
		case "darwin":
			return ["-n", "-c", "1", "-W", String(WAIT_SECONDS * 1000), address];
		case "freebsd":
		case "openbsd":
		case "netbsd":
			return ["-n", "-c", "1", "-w", String(WAIT_SECONDS), address];
		default:
			return ["-n", "-c", "1", "-W", String(WAIT_SECONDS), address];
	}
}
