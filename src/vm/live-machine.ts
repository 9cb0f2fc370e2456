/** One running guest: its process, its channel, its console. It fails once, as a whole, with one cause. */

import { randomBytes } from "node:crypto";
import { SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import type { Parsed } from "../parsed.js";
import { PROTOCOL_VERSION } from "./channel/frame.js";
import {
	type CallHandlers,
	type Clock,
	type GuestCall,
	GuestCallError,
	GuestChannel,
} from "./channel/guest-channel.js";
import {
	type Hello,
	Op,
	parseReadDone,
	parseRunDone,
	parseWriteDone,
	type ReadDone,
	type RunDone,
	SEED_BYTES,
	serializeBareOp,
	serializeRead,
	serializeRun,
	serializeWrite,
	type WriteDone,
} from "./channel/messages.js";
import { ConsoleLog } from "./console-log.js";
import type { MachineImage } from "./machine-image.js";
import { MachineProcess, type OutgoingState } from "./machine-process-link.js";
import type { NetworkAttachment, StartMessage } from "./process-messages.js";

const BOOT_TIMEOUT_MS = 60_000;
const HELLO_TIMEOUT_MS = 20_000;
const HOLD_TIMEOUT_MS = 10_000;
/** A call that moves nothing for this long has lost its guest. */
const STALL_TIMEOUT_MS = 30_000;
const COMPACT_TIMEOUT_MS = 60_000;

export interface LiveMachineOptions {
	readonly image: MachineImage;
	readonly memoryMiB: number;
	readonly commandLine: string;
	readonly network: NetworkAttachment;
	readonly consoleLogPath: string;
	readonly log: Log;
	/** Called once, when the guest or its process dies without having been stopped. */
	readonly onDeath: (cause: SandboxError) => void;
	/** Processes that commands left running, whenever that becomes zero or non-zero. */
	readonly onBusy: (processes: number) => void;
}

export class LiveMachine {
	readonly #options: LiveMachineOptions;
	readonly #process: MachineProcess;
	readonly #console: ConsoleLog;
	#channel: GuestChannel | undefined;
	#failure: SandboxError | undefined;
	#stopped = false;
	#booted: (() => void) | undefined;

	constructor(options: LiveMachineOptions) {
		this.#options = options;
		this.#console = new ConsoleLog(options.consoleLogPath);
		this.#process = new MachineProcess(options.image, options.network, options.log, {
			onOutput: (frame) => this.#channel?.receive(frame),
			onConsole: (bytes) => {
				const lastWords = this.#console.write(bytes);
				if (lastWords !== undefined) this.fail(`the guest stopped: ${lastWords}`);
			},
			onDeath: (cause) => this.fail(cause.message, cause.hint),
		});
	}

	get processId(): number | undefined {
		return this.#process.pid;
	}

	/** Loads the emulator and, unless it is to stay empty for a restore, brings the guest up to its HELLO. */
	async start(from: StartMessage["from"]): Promise<void> {
		const { image, memoryMiB, commandLine, network } = this.#options;
		const windowPieces = await this.#process.start({ image, memoryMiB, commandLine, network, from });
		const channel = new GuestChannel({
			sendInput: (bytes) => this.#process.sendInput(bytes),
			windowPieces,
			onBusy: this.#options.onBusy,
			onBoot: () => this.#handleBoot(),
			onViolation: (reason) => this.fail(`the guest broke the channel's protocol: ${reason}`),
		});
		this.#channel = channel;
		if (from.kind === "empty") return;
		if (from.kind === "kernel") {
			const booted = new Promise<void>((resolve) => {
				this.#booted = resolve;
			});
			this.#process.resume();
			await this.#within(BOOT_TIMEOUT_MS, "did not boot", Promise.race([booted, this.#death()]));
		} else {
			this.#process.resume();
		}
		await this.#greet(new Error("the guest started"));
	}

	/** Runs a command; `call.done` carries a RunDone (parseRunResult). */
	openRun(handlers: CallHandlers): GuestCall {
		return this.#open(serializeRun(clock().wallClockMicros), handlers);
	}

	parseRun(payload: Uint8Array): RunDone {
		return this.#parsed(parseRunDone(payload));
	}

	async readFile(path: string, offset: number, limit: number, onBytes: (bytes: Uint8Array) => void): Promise<ReadDone> {
		const stall = this.#watchStall("a read");
		try {
			const call = this.#open(serializeRead(offset, limit, path), {
				onOutput: (_stream, bytes) => {
					stall.moved();
					onBytes(bytes);
				},
			});
			return this.#parsed(parseReadDone(await guestFile(call.done, path)));
		} finally {
			stall.end();
		}
	}

	async writeFile(path: string, content: Uint8Array, mode: number | undefined, append: boolean): Promise<WriteDone> {
		const stall = this.#watchStall("a write");
		try {
			const call = this.#open(serializeWrite(mode, append, path));
			const sent = (async () => {
				for (let at = 0; at < content.length; at += WRITE_STRIDE_BYTES) {
					await call.write(content.subarray(at, at + WRITE_STRIDE_BYTES));
					stall.moved();
				}
				call.end();
			})();
			const [done] = await Promise.all([guestFile(call.done, path), sent]);
			return this.#parsed(parseWriteDone(done));
		} finally {
			stall.end();
		}
	}

	/** Drops the page cache and zeroes free memory, so that a state is small. */
	async compact(): Promise<void> {
		const done = this.#open(serializeBareOp(Op.compact)).done;
		await this.#within(COMPACT_TIMEOUT_MS, "did not compact its memory", done);
	}

	/** All that changed since the boot, as an OCI layer. */
	async *exportChanges(): AsyncGenerator<Uint8Array> {
		const chunks: { bytes: Uint8Array; taken: () => void }[] = [];
		let wake = () => {};
		let ended = false;
		const call = this.#open(serializeBareOp(Op.export), {
			onOutput: (_stream, bytes) =>
				new Promise<void>((taken) => {
					chunks.push({ bytes, taken });
					wake();
				}),
		});
		const done = call.done.finally(() => {
			ended = true;
			wake();
		});
		done.catch(() => {});
		while (!ended || chunks.length > 0) {
			const chunk = chunks.shift();
			if (chunk === undefined) {
				await new Promise<void>((resolve) => {
					wake = resolve;
				});
				continue;
			}
			yield chunk.bytes;
			chunk.taken();
		}
		await done;
	}

	/** Saves the state at a moment when the channel is clean. */
	async save(): Promise<OutgoingState> {
		const channel = this.#channelOrThrow();
		await this.#within(HOLD_TIMEOUT_MS, "did not read what it was sent", channel.hold());
		try {
			return await this.#process.save();
		} finally {
			channel.release();
		}
	}

	/** Replaces the state in place; calls in flight are rejected with `reason`. */
	async restore(bytes: number, chunks: AsyncIterable<Uint8Array>, reason: SandboxError): Promise<void> {
		await this.#process.restore(bytes, chunks);
		this.#process.resume();
		await this.#greet(reason);
	}

	async pause(): Promise<void> {
		await this.#process.pause();
	}

	/** Goes on after a pause, with the clock set and the random pool reseeded before anything that follows. */
	wake(): void {
		this.#process.resume();
		this.#channelOrThrow().wake(clock());
	}

	/** Ends the guest as failed; the last console lines go into the message. */
	fail(why: string, hint?: string): SandboxError {
		if (this.#failure !== undefined) return this.#failure;
		const lines = this.#console.lastLines();
		const said = lines.length === 0 ? "" : `; the console's last lines:\n${lines.join("\n")}`;
		const cause = new SandboxError(
			"machine-failed",
			`${why}${said}`,
			hint ?? `the next call gets a fresh machine; the whole console is in ${this.#console.path}`,
		);
		this.#failure = cause;
		this.#channel?.fail(cause);
		void this.#console.close();
		for (const reject of this.#deathWatchers) reject(cause);
		this.#deathWatchers.clear();
		if (!this.#stopped) this.#options.onDeath(cause);
		void this.#process.stop();
		return cause;
	}

	/** Ends the guest and its process at once. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.fail("the machine was stopped", "start it again with the next call");
		await this.#process.stop();
	}

	readonly #deathWatchers = new Set<(cause: SandboxError) => void>();

	#death(): Promise<never> {
		return new Promise((_resolve, reject) => {
			if (this.#failure !== undefined) reject(this.#failure);
			else this.#deathWatchers.add(reject);
		});
	}

	#open(args: Uint8Array, handlers: CallHandlers = {}): GuestCall {
		const call = this.#channelOrThrow().open(args, handlers);
		call.done.catch(() => {});
		return call;
	}

	#channelOrThrow(): GuestChannel {
		if (this.#failure !== undefined) throw this.#failure;
		if (this.#channel === undefined) throw new SandboxError("internal", "the machine's channel is not open yet");
		return this.#channel;
	}

	#handleBoot(): void {
		if (this.#booted === undefined) {
			this.fail("the guest started anew by itself");
			return;
		}
		this.#booted();
		this.#booted = undefined;
	}

	async #greet(reason: Error): Promise<Hello> {
		const greeting = this.#channelOrThrow().reset(clock(), reason);
		const hello = await this.#within(HELLO_TIMEOUT_MS, "did not answer", greeting);
		if (hello.protocolVersion !== PROTOCOL_VERSION) {
			throw this.fail(`the guest's agent speaks protocol ${hello.protocolVersion}, this server ${PROTOCOL_VERSION}`);
		}
		this.#options.log.debug(`guest: Linux ${hello.kernelRelease}, shell ${hello.shellPath}`);
		return hello;
	}

	#parsed<T>(parsed: Parsed<T>): T {
		if (parsed.ok) return parsed.value;
		throw this.fail(`the guest broke the channel's protocol: ${parsed.reason}`);
	}

	/** Fails the machine if `promise` takes longer than `timeoutMs`. */
	async #within<T>(timeoutMs: number, complaint: string, promise: Promise<T>): Promise<T> {
		let timer: NodeJS.Timeout | undefined;
		const late = new Promise<never>((_resolve, reject) => {
			timer = setTimeout(() => reject(this.fail(`the guest ${complaint} within ${timeoutMs} ms`)), timeoutMs);
		});
		try {
			return await Promise.race([promise, late]);
		} finally {
			clearTimeout(timer);
		}
	}

	#watchStall(what: string): { moved: () => void; end: () => void } {
		const timer = setTimeout(
			() => this.fail(`${what} in the guest made no progress for ${STALL_TIMEOUT_MS} ms`),
			STALL_TIMEOUT_MS,
		);
		return { moved: () => timer.refresh(), end: () => clearTimeout(timer) };
	}
}

const WRITE_STRIDE_BYTES = 256 * 1024;

async function guestFile<T>(done: Promise<T>, path: string): Promise<T> {
	try {
		return await done;
	} catch (error) {
		if (error instanceof GuestCallError) throw new SandboxError("guest-file", `${path}: ${error.message}`);
		throw error;
	}
}

function clock(): Clock {
	return {
		wallClockMicros: BigInt(Date.now()) * 1000n,
		seed: randomBytes(SEED_BYTES),
	};
}
