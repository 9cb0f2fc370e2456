/** The server's end of a machine process: starts it with no privileges, passes orders, streams states, tells of its end. */

import { type ChildProcess, spawn } from "node:child_process";
import { realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import type { MachineImage } from "./machine-image.js";
import {
	type FromMachine,
	type NetworkAttachment,
	STATE_CHUNK_BYTES,
	STATE_WINDOW_CHUNKS,
	type StartMessage,
	type ToMachine,
} from "./process-messages.js";

const ENTRY_PATH = fileURLToPath(new URL("./machine-process.js", import.meta.url));
const PACKAGE_PATH = fileURLToPath(new URL("../../", import.meta.url));
const STDERR_MAX_CHARS = 2048;

export interface MachineProcessEvents {
	readonly onOutput: (frame: Uint8Array) => void;
	readonly onConsole: (bytes: Uint8Array) => void;
	/** The process is gone without having been stopped; called once. */
	readonly onDeath: (cause: SandboxError) => void;
}

type Answer = Exclude<FromMachine["type"], "output" | "console" | "failed" | "state-ack" | "state-chunk">;

/** A state on its way out of the machine process. */
export interface OutgoingState {
	readonly bytes: number;
	readonly chunks: AsyncIterable<Uint8Array>;
}

export class MachineProcess {
	readonly #child: ChildProcess;
	readonly #events: MachineProcessEvents;
	readonly #exited: Promise<void>;
	readonly #waiting = new Map<Answer, { resolve: (message: FromMachine) => void; reject: (error: Error) => void }>();
	#stderr = "";
	#failure: SandboxError | undefined;
	#stopping = false;
	#chunks: Uint8Array[] = [];
	#unacknowledged = 0;
	#wake: (() => void) | undefined;

	constructor(image: MachineImage, network: NetworkAttachment, log: Log, events: MachineProcessEvents) {
		this.#events = events;
		const readable = readableFolders(image);
		const flags = [
			permissionFlag(),
			...readable.map((folder) => `--allow-fs-read=${folder}`),
			...networkFlags(network),
			"--no-warnings",
		];
		this.#child = spawn(process.execPath, [...flags, ENTRY_PATH], {
			stdio: ["ignore", "ignore", "pipe", "ipc"],
			serialization: "advanced",
			env: {},
			cwd: dirname(ENTRY_PATH),
			windowsHide: true,
		});
		this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
			this.#stderr = (this.#stderr + text).slice(-STDERR_MAX_CHARS);
			log.debug(`machine process: ${text.slice(0, STDERR_MAX_CHARS).trimEnd()}`);
		});
		this.#child.on("message", (message) => this.#receive(message as FromMachine));
		this.#exited = new Promise((resolve) => {
			this.#child.once("error", (error) => {
				this.#die(new SandboxError("machine-failed", `the machine process can't be started: ${error.message}`));
				resolve();
			});
			this.#child.once("exit", (code, signal) => {
				this.#die(
					new SandboxError(
						"machine-failed",
						`the machine process ended (${signal ?? `exit code ${code}`})${this.#lastWords()}`,
					),
				);
				resolve();
			});
		});
	}

	get pid(): number | undefined {
		return this.#child.pid;
	}

	/** Loads the emulator, stopped; resolves with the number of pieces that the guest's port takes at once. */
	async start(message: Omit<StartMessage, "type">): Promise<number> {
		const answer = await this.#ask({ type: "start", ...message }, "loaded");
		return answer.windowPieces;
	}

	sendInput(bytes: Uint8Array): void {
		this.#send({ type: "input", bytes });
	}

	async pause(): Promise<void> {
		await this.#ask({ type: "pause" }, "paused");
	}

	resume(): void {
		this.#send({ type: "resume" });
	}

	/** Saves the state; the machine goes on as it was while the chunks travel. They must be read to the end. */
	async save(): Promise<OutgoingState> {
		this.#chunks = [];
		const { bytes } = await this.#ask({ type: "save" }, "saved");
		return { bytes, chunks: this.#readChunks(bytes) };
	}

	/** Replaces the state; the machine is stopped afterwards. */
	async restore(bytes: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
		const restored = this.#ask({ type: "restore", bytes }, "restored");
		restored.catch(() => {});
		let sent = 0;
		for await (const chunk of chunks) {
			for (let at = 0; at < chunk.length; at += STATE_CHUNK_BYTES) {
				while (this.#unacknowledged >= STATE_WINDOW_CHUNKS && this.#failure === undefined) await this.#progress();
				if (this.#failure !== undefined) throw this.#failure;
				const part = chunk.subarray(at, at + STATE_CHUNK_BYTES);
				sent += part.length;
				if (sent > bytes) throw new SandboxError("corrupt", `a state of ${bytes} bytes goes on after its end`);
				this.#unacknowledged++;
				this.#send({ type: "state-chunk", bytes: part });
			}
		}
		if (sent < bytes) throw new SandboxError("corrupt", `a state of ${bytes} bytes ends after ${sent}`);
		await restored;
	}

	/** Ends the process at once; resolves when it is gone. */
	async stop(): Promise<void> {
		this.#stopping = true;
		this.#child.kill("SIGKILL");
		await this.#exited;
	}

	#receive(message: FromMachine): void {
		switch (message.type) {
			case "output":
				this.#events.onOutput(message.bytes);
				return;
			case "console":
				this.#events.onConsole(message.bytes);
				return;
			case "state-chunk":
				this.#chunks.push(message.bytes);
				this.#wake?.();
				return;
			case "state-ack":
				this.#unacknowledged--;
				this.#wake?.();
				return;
			case "failed":
				this.#die(new SandboxError("machine-failed", message.message, message.hint === "" ? undefined : message.hint));
				return;
			default: {
				const waiting = this.#waiting.get(message.type);
				this.#waiting.delete(message.type);
				waiting?.resolve(message);
			}
		}
	}

	#ask<T extends Answer>(message: ToMachine, answer: T): Promise<Extract<FromMachine, { type: T }>> {
		return new Promise((resolve, reject) => {
			if (this.#failure !== undefined) {
				reject(this.#failure);
				return;
			}
			this.#waiting.set(answer, { resolve: resolve as (message: FromMachine) => void, reject });
			this.#send(message);
		});
	}

	#send(message: ToMachine): void {
		if (this.#child.connected) this.#child.send(message, () => {});
	}

	async *#readChunks(total: number): AsyncGenerator<Uint8Array> {
		let received = 0;
		while (received < total) {
			const chunk = this.#chunks.shift();
			if (chunk === undefined) {
				if (this.#failure !== undefined) throw this.#failure;
				await this.#progress();
				continue;
			}
			received += chunk.length;
			this.#send({ type: "state-ack" });
			yield chunk;
		}
	}

	#progress(): Promise<void> {
		return new Promise((resolve) => {
			this.#wake = resolve;
		});
	}

	#die(cause: SandboxError): void {
		if (this.#failure !== undefined) return;
		this.#failure = cause;
		for (const waiting of this.#waiting.values()) waiting.reject(cause);
		this.#waiting.clear();
		this.#wake?.();
		if (!this.#stopping) this.#events.onDeath(cause);
	}

	#lastWords(): string {
		const line = this.#stderr.trim().split("\n").at(-1);
		return line === undefined || line === "" ? "" : `: ${line}`;
	}
}

function permissionFlag(): string {
	return process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
}

/** Later versions of Node close the network, too, unless this is said. */
function networkFlags(network: NetworkAttachment): string[] {
	const flag = "--allow-net";
	return network.kind !== "none" && process.allowedNodeEnvironmentFlags.has(flag) ? [flag] : [];
}

/** A package's folder, wherever it is installed. */
function packageFolder(entry: string): string {
	return dirname(createRequire(import.meta.url).resolve(entry));
}

/** The package, the emulator and the image: all that the machine process may read. */
function readableFolders(image: MachineImage): string[] {
	const folders = [
		PACKAGE_PATH,
		dirname(packageFolder("v86")),
		packageFolder("ws"),
		dirname(image.kernelPath),
		dirname(image.initramfsPath),
		dirname(image.biosPath),
		dirname(image.treePath),
		image.filesPath,
		image.bootSnapshotsPath,
	];
	return [...new Set(folders.map((folder) => `${realpathSync(folder)}${sep}`))];
}
