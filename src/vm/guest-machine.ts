/** The machine: one guest at a time, started lazily, shared by concurrent callers, paused when idle, replaced when it dies. */

import { mkdir } from "node:fs/promises";
import { describeError, SandboxError } from "../errors.js";
import { findBootSnapshot, removeBootSnapshot, writeBootSnapshot } from "./boot-snapshot.js";
import { MAX_COMMAND_BYTES, MAX_PATH_BYTES } from "./channel/messages.js";
import { runCommand } from "./command-run.js";
import { emulatorVersion } from "./emulator-version.js";
import { type LifecycleEvent, nextState } from "./lifecycle.js";
import { LiveMachine } from "./live-machine.js";
import type {
	FileContent,
	Machine,
	MachineOptions,
	MachineSaved,
	MachineStateName,
	ReadFileOptions,
	RunOptions,
	RunResult,
	WriteFileOptions,
	WrittenFile,
} from "./machine.js";
import { ShellQueue } from "./shell-queue.js";

/** A machine that nothing uses is paused after this long. */
const IDLE_MS = 250;
/** Kernel command line: quiet, and with nothing that only costs time in an emulator. */
const COMMAND_LINE = "console=ttyS0 quiet norandmaps tsc=reliable";

export function createMachine(options: MachineOptions): Machine {
	return new GuestMachine(options);
}

/** The state names, each with what exists in it. */
type Life =
	| { readonly state: "created" }
	| { readonly state: "booting" | "restoring"; readonly ready: Promise<LiveMachine> }
	| { readonly state: "running" | "paused"; readonly live: LiveMachine }
	| { readonly state: "failed"; readonly cause: SandboxError }
	| { readonly state: "stopped" };

class GuestMachine implements Machine {
	readonly #options: MachineOptions;
	readonly #shell = new ShellQueue();
	#life: Life = { state: "created" };
	/** Calls that keep the machine awake. */
	#active = 0;
	/** Processes that commands left running; they keep it awake, too. */
	#processes = 0;
	#idleTimer: NodeJS.Timeout | undefined;
	/** What the next caller must be told. */
	#notices: string[] = [];

	constructor(options: MachineOptions) {
		this.#options = options;
	}

	get state(): MachineStateName {
		return this.#life.state;
	}

	async start(): Promise<void> {
		await this.#use(async () => {});
	}

	async run(command: string, options: RunOptions): Promise<RunResult> {
		const text = new TextEncoder().encode(command);
		if (text.length > MAX_COMMAND_BYTES) {
			throw invalid(
				`the command has ${text.length} bytes, at most ${MAX_COMMAND_BYTES} are taken`,
				"write it to a file with write_file and run that",
			);
		}
		if (command.includes("\0")) throw invalid("the command holds a NUL character", "remove it");
		const leave = await this.#shell.enter(options.signal);
		try {
			return await this.#use(async (live) => {
				const { result, processes } = await runCommand(live, text, options);
				this.#processes = processes;
				return { ...result, notices: [...this.#takeNotices(), ...result.notices] };
			});
		} finally {
			leave();
		}
	}

	async readFile(path: string, options: ReadFileOptions): Promise<FileContent> {
		checkPath(path);
		return this.#use(async (live) => {
			const chunks: Uint8Array[] = [];
			const offset = options.offset ?? 0;
			// One byte more than asked for tells whether the file goes on (files of /proc have no size).
			const done = await live.readFile(path, offset, options.limit + 1, (bytes) => chunks.push(bytes));
			const bytes = Buffer.concat(chunks);
			return {
				bytes: bytes.subarray(0, options.limit),
				sizeBytes: done.sizeBytes,
				truncated: bytes.length > options.limit,
				notices: this.#takeNotices(),
			};
		});
	}

	async writeFile(path: string, content: Uint8Array, options: WriteFileOptions = {}): Promise<WrittenFile> {
		checkPath(path);
		return this.#use(async (live) => {
			const done = await live.writeFile(path, content, options.mode, options.append ?? false);
			return { ...done, notices: this.#takeNotices() };
		});
	}

	async keepAwake(): Promise<() => void> {
		this.#active++;
		clearTimeout(this.#idleTimer);
		let isHeld = true;
		const release = () => {
			if (!isHeld) return;
			isHeld = false;
			this.#active--;
			this.#scheduleIdle();
		};
		try {
			await this.#ready();
			return release;
		} catch (error) {
			release();
			throw error;
		}
	}

	async save<T>(consume: (saved: MachineSaved) => Promise<T>): Promise<T> {
		return this.#use(async (live) => this.#saveOf(live, consume));
	}

	async restore(saved: MachineSaved): Promise<void> {
		this.#checkFits(saved);
		if (this.#life.state === "booting" || this.#life.state === "restoring") await this.#ready();
		clearTimeout(this.#idleTimer);
		this.#options.network?.abandonFlows([]);
		const reason = new SandboxError("cancelled", "the machine was restored to a snapshot while the call ran");
		const restoring =
			this.#life.state === "running" || this.#life.state === "paused"
				? this.#restoreInPlace(this.#life.live, saved, reason)
				: this.#launch((live) => restoreInto(live, saved, reason));
		await this.#track("restore", restoring);
		this.#options.network?.abandonFlows(saved.openFlows);
		this.#notices = [];
		this.#processes = 0;
		this.#scheduleIdle();
	}

	async *exportChanges(): AsyncGenerator<Uint8Array> {
		const live = await this.#ready();
		this.#active++;
		try {
			yield* live.exportChanges();
		} finally {
			this.#active--;
			this.#scheduleIdle();
		}
	}

	async stop(): Promise<void> {
		clearTimeout(this.#idleTimer);
		const life = this.#life;
		if (life.state === "stopped") return;
		this.#enter("stop", { state: "stopped" });
		if (life.state === "running" || life.state === "paused") await life.live.stop();
		await this.#starting?.stop();
	}

	/** The guest that is coming up; `stop` must not wait for it. */
	#starting: LiveMachine | undefined;

	/** Runs `work` on a machine that is awake, and keeps it awake meanwhile. */
	async #use<T>(work: (live: LiveMachine) => Promise<T>): Promise<T> {
		this.#active++;
		clearTimeout(this.#idleTimer);
		try {
			return await work(await this.#ready());
		} finally {
			this.#active--;
			this.#scheduleIdle();
		}
	}

	async #ready(): Promise<LiveMachine> {
		const life = this.#life;
		switch (life.state) {
			case "booting":
			case "restoring":
				return life.ready;
			case "running":
				return life.live;
			case "paused":
				this.#options.network?.guestResumed();
				life.live.wake();
				this.#enter("wake", { state: "running", live: life.live });
				return life.live;
			case "stopped":
				throw new SandboxError("machine-failed", "the machine was stopped", "start the server again");
			case "failed":
				this.#notices = [
					`The earlier machine failed (${life.cause.message}). This is a fresh one: what it had in memory, on its disk and running is gone; restore a snapshot to get back to one.`,
				];
				return this.#startFresh();
			case "created":
				return this.#startFresh();
		}
	}

	/** From the boot snapshot where there is one; else by booting, which leaves one behind. */
	#startFresh(): Promise<LiveMachine> {
		this.#processes = 0;
		return this.#track("boot", this.#bringUp());
	}

	async #bringUp(): Promise<LiveMachine> {
		const { image, memoryMiB, log } = this.#options;
		if (this.#options.startFrom === "cold") return this.#launch((live) => live.start({ kind: "kernel" }));
		const found = await findBootSnapshot(image, memoryMiB, log);
		if (found !== undefined) {
			try {
				return await this.#launch((live) => live.start({ kind: "file", file: found }));
			} catch (error) {
				// A cache must never be what keeps a machine from starting.
				log.warn(`the boot snapshot can't be used (${describeError(error)}); booting instead`);
				await removeBootSnapshot(image, memoryMiB);
			}
		}
		return this.#launch(async (live) => {
			await live.start({ kind: "kernel" });
			await this.#leaveBootSnapshot(live);
		});
	}

	async #leaveBootSnapshot(live: LiveMachine): Promise<void> {
		const { image, log } = this.#options;
		try {
			await live.compact();
			for (const command of image.warmCommands) {
				await runCommand(live, new TextEncoder().encode(command), { timeoutMs: WARM_TIMEOUT_MS });
			}
			await this.#saveOf(live, (saved) => writeBootSnapshot(image, saved));
		} catch (error) {
			// A full disk must not keep a machine from running; it only starts slower next time.
			if (error instanceof SandboxError && error.code === "machine-failed") throw error;
			log.warn(`no boot snapshot could be written: ${describeError(error)}`);
		}
	}

	async #launch(bringUp: (live: LiveMachine) => Promise<void>): Promise<LiveMachine> {
		const { image, memoryMiB, consoleLogPath, log } = this.#options;
		await mkdir(image.bootSnapshotsPath, { recursive: true });
		const network = (await this.#options.network?.attach()) ?? { kind: "none" };
		const live = new LiveMachine({
			image,
			memoryMiB,
			commandLine: COMMAND_LINE,
			network,
			consoleLogPath,
			log,
			onDeath: (cause) => this.#handleDeath(live, cause),
			onBusy: (processes) => {
				this.#processes = processes;
				this.#scheduleIdle();
			},
		});
		this.#starting = live;
		try {
			await bringUp(live);
			return live;
		} catch (error) {
			await live.stop();
			throw error;
		} finally {
			this.#starting = undefined;
		}
	}

	async #restoreInPlace(live: LiveMachine, saved: MachineSaved, reason: SandboxError): Promise<LiveMachine> {
		await live.restore(saved.stateBytes, saved.state, reason);
		return live;
	}

	/** Enters the state that `event` leads to until `becoming` is settled; concurrent callers share it. */
	#track(event: "boot" | "restore", becoming: Promise<LiveMachine>): Promise<LiveMachine> {
		const ready = becoming.then(
			(live) => {
				if (this.#life.state === "stopped") throw new SandboxError("machine-failed", "the machine was stopped");
				this.#enter("ready", { state: "running", live });
				this.#options.network?.guestIsUp();
				return live;
			},
			(error: unknown) => {
				const cause = error instanceof SandboxError ? error : new SandboxError("internal", describeError(error));
				if (this.#life.state !== "stopped") this.#enter("fail", { state: "failed", cause });
				throw cause;
			},
		);
		ready.catch(() => {});
		this.#enter(event, { state: event === "boot" ? "booting" : "restoring", ready });
		return ready;
	}

	#enter(event: LifecycleEvent, life: Life): void {
		const expected = nextState(this.#life.state, event);
		if (life.state !== expected) throw new SandboxError("internal", `${event} leads to ${expected}, not ${life.state}`);
		this.#life = life;
	}

	#handleDeath(live: LiveMachine, cause: SandboxError): void {
		this.#options.log.warn(cause.message);
		if ((this.#life.state === "running" || this.#life.state === "paused") && this.#life.live === live) {
			this.#enter("fail", { state: "failed", cause });
		}
	}

	#scheduleIdle(): void {
		clearTimeout(this.#idleTimer);
		if (this.#active > 0 || this.#processes > 0 || this.#life.state !== "running") return;
		this.#idleTimer = setTimeout(() => this.#pauseIfIdle(), IDLE_MS);
		this.#idleTimer.unref();
	}

	#pauseIfIdle(): void {
		if (this.#active > 0 || this.#processes > 0 || this.#life.state !== "running") return;
		const { live } = this.#life;
		this.#enter("pause", { state: "paused", live });
		live.pause().catch(() => {});
		this.#options.network?.guestPaused();
	}

	async #saveOf<T>(live: LiveMachine, consume: (saved: MachineSaved) => Promise<T>): Promise<T> {
		const { image, memoryMiB } = this.#options;
		const state = await live.save();
		return consume({
			imageName: image.name,
			imageDigest: image.digest,
			memoryMiB,
			emulatorVersion: emulatorVersion(),
			openFlows: this.#options.network?.openFlows() ?? [],
			stateBytes: state.bytes,
			state: state.chunks,
		});
	}

	#checkFits(saved: MachineSaved): void {
		const { image, memoryMiB } = this.#options;
		if (saved.imageDigest !== image.digest) {
			throw mismatch(
				saved.imageName === image.name
					? `the snapshot is of another build of image ${image.name}`
					: `the snapshot is of image ${saved.imageName}, this server runs ${image.name}`,
				`start the server with --image ${saved.imageName} as it was when the snapshot was taken`,
			);
		}
		if (saved.memoryMiB !== memoryMiB) {
			throw mismatch(
				`the snapshot is of a machine with ${saved.memoryMiB} MiB, this one has ${memoryMiB} MiB`,
				`start the server with --memory ${saved.memoryMiB}`,
			);
		}
		if (saved.emulatorVersion !== emulatorVersion()) {
			throw mismatch(
				`the snapshot was saved by v86 ${saved.emulatorVersion}, this is ${emulatorVersion()}`,
				"use the version of sandbox86 that took the snapshot",
			);
		}
	}

	#takeNotices(): string[] {
		const notices = this.#notices;
		this.#notices = [];
		return notices;
	}
}

/** Brings a guest up in an empty emulator, straight from a saved state. */
async function restoreInto(live: LiveMachine, saved: MachineSaved, reason: SandboxError): Promise<void> {
	await live.start({ kind: "empty" });
	await live.restore(saved.stateBytes, saved.state, reason);
}

const WARM_TIMEOUT_MS = 120_000;

function checkPath(path: string): void {
	const bytes = Buffer.byteLength(path);
	if (path === "") throw invalid("the path is empty", "give an absolute path, or one relative to the shell's folder");
	if (path.includes("\0")) throw invalid("the path holds a NUL character", "remove it");
	if (bytes > MAX_PATH_BYTES)
		throw invalid(`the path has ${bytes} bytes, at most ${MAX_PATH_BYTES} are taken`, "shorten it");
}

function invalid(message: string, hint: string): SandboxError {
	return new SandboxError("invalid-argument", message, hint);
}

function mismatch(message: string, hint: string): SandboxError {
	return new SandboxError("mismatch", message, hint);
}
