import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

export interface KernelPeerOptions {
	/** Path of tap-peer. */
	readonly program: string;
	/** The relay's, with its token. */
	readonly url: string;
	readonly mtu: number;
	/** Of so many of 1000 frames each way one is dropped, doubled or held back, by turns. */
	readonly faults?: number;
	/** The address is set by hand; otherwise the interface stays without. */
	readonly hasAddress?: boolean;
}

export interface Output {
	readonly status: number | null;
	readonly stdout: string;
	readonly stderr: string;
}

let serial = 0;

/** A network namespace of this kernel as a machine of the relay: its only way out is a TAP device that leads there. */
export class KernelPeer {
	readonly namespace: string;
	readonly #process: ChildProcess;
	readonly #children = new Set<ChildProcess>();

	private constructor(namespace: string, process: ChildProcess) {
		this.namespace = namespace;
		this.#process = process;
	}

	static async start({ program, url, mtu, faults = 0, hasAddress = true }: KernelPeerOptions): Promise<KernelPeer> {
		const namespace = `sandbox86-${process.pid}-${++serial}`;
		const { hostname, port, pathname } = new URL(url);
		ip("netns", "add", namespace);
		const child = spawn(program, [hostname, port, pathname, namespace, "tap0", String(faults)], {
			stdio: ["ignore", "pipe", "pipe"],
		});
		const peer = new KernelPeer(namespace, child);
		let errors = "";
		child.stderr.on("data", (text) => {
			errors += text;
		});
		const [line] = (await Promise.race([
			once(createInterface({ input: child.stdout }), "line"),
			once(child, "exit").then(() => [""]),
		])) as [string];
		if (line !== "ready") throw new Error(`tap-peer ended: ${errors}`);
		// Only what the tests send is to be on the wire.
		peer.#runSync("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1");
		peer.ip("link", "set", "lo", "up");
		peer.ip("link", "set", "tap0", "mtu", String(mtu), "txqueuelen", "10000", "up");
		if (hasAddress) peer.configure("10.0.2.15/24", "10.0.2.2");
		return peer;
	}

	configure(address: string, router: string): void {
		this.ip("addr", "add", address, "dev", "tap0");
		this.ip("route", "add", "default", "via", router);
	}

	get pid(): number {
		return this.#process.pid ?? 0;
	}

	ip(...args: string[]): void {
		ip("-n", this.namespace, ...args);
	}

	/** Runs a program in the namespace; its status is a result. */
	run(program: string, args: readonly string[], input = ""): Promise<Output> {
		return new Promise((resolve) => {
			const child = execFile(
				"ip",
				["netns", "exec", this.namespace, program, ...args],
				{ maxBuffer: 1 << 26 },
				(_error, stdout, stderr) => {
					this.#children.delete(child);
					resolve({ status: child.exitCode, stdout, stderr });
				},
			);
			this.#children.add(child);
			// A program that reads nothing may be gone already.
			child.stdin?.on("error", () => {});
			child.stdin?.end(input);
		});
	}

	/** Runs JavaScript in the namespace, as a module; what it prints. Throws if it fails. */
	async node(script: string): Promise<string> {
		const { status, stdout, stderr } = await this.run(process.execPath, ["--input-type=module", "-e", script]);
		if (status !== 0) throw new Error(`status ${status}: ${stderr}`);
		return stdout;
	}

	/** Starts JavaScript in the namespace; it lives until stop(). The lines that it prints come through `next`. */
	startNode(script: string): { next(): Promise<string>; send(line: string): void; ended: Promise<unknown> } {
		const child = spawn(
			"ip",
			["netns", "exec", this.namespace, process.execPath, "--input-type=module", "-e", script],
			{ stdio: ["pipe", "pipe", "inherit"] },
		);
		this.#children.add(child);
		const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
		return {
			next: async () => String((await lines.next()).value),
			send: (line) => void child.stdin.write(`${line}\n`),
			ended: once(child, "exit"),
		};
	}

	/** One of the kernel's counters of the namespace, such as "Tcp InCsumErrors". */
	counter(name: string): number {
		const [group, field] = name.split(" ");
		const text = execFileSync("ip", ["netns", "exec", this.namespace, "cat", "/proc/net/snmp"], { encoding: "utf8" });
		const [names, values] = text.split("\n").filter((line) => line.startsWith(`${group}: `));
		const at = names?.split(" ").indexOf(field ?? "") ?? -1;
		if (at < 0) throw new Error(`there is no counter ${name}`);
		return Number(values?.split(" ")[at]);
	}

	async stop(): Promise<void> {
		for (const child of this.#children) child.kill("SIGKILL");
		const ended = this.#process.exitCode === null ? once(this.#process, "exit") : undefined;
		this.#process.kill();
		await ended;
		ip("netns", "del", this.namespace);
	}

	#runSync(program: string, ...args: string[]): void {
		execFileSync("ip", ["netns", "exec", this.namespace, program, ...args]);
	}
}

/** Whether the host has the program; where not, its tests say which Debian package brings it. */
export function hasProgram(name: string): boolean {
	return spawnSync("sh", ["-c", `command -v ${name}`]).status === 0;
}

function ip(...args: string[]): void {
	execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}
