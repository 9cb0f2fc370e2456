import type { Log } from "../log.js";
import type { MachineImage } from "./machine-image.js";
import type { NetworkAttachment } from "./process-messages.js";

/** The life of a machine: `created → booting|restoring → running ⇄ paused → stopped`, or `failed`. */
export type MachineStateName = "created" | "booting" | "restoring" | "running" | "paused" | "failed" | "stopped";

/** Largest IPv4 packet on the guest's wire, bytes; its driver reads this once, when it boots. */
export const NETWORK_MTU = 1500;

/** A TCP connection of the guest to the outside. */
export interface OpenFlow {
	readonly protocol: "tcp";
	readonly guestPort: number;
	/** Dotted quad. */
	readonly remoteAddress: string;
	readonly remotePort: number;
}

/** What a machine needs to know of its network. */
export interface MachineNetwork {
	/** Makes the network ready; called before each start of a guest. */
	attach(): Promise<NetworkAttachment>;
	/** The guest runs, with its network card set up. */
	guestIsUp(): void;
	/** The guest stands still, or goes on: what it has open must outlast that. */
	guestPaused(): void;
	guestResumed(): void;
	/** The connections that a snapshot taken now has to remember. */
	openFlows(): readonly OpenFlow[];
	/** The guest was put back in time: drops its connections of today, and has those of its past reset. */
	abandonFlows(flows: readonly OpenFlow[]): void;
}

export interface MachineOptions {
	readonly image: MachineImage;
	/** Default: none. */
	readonly network?: MachineNetwork;
	/** Guest memory, MiB. */
	readonly memoryMiB: number;
	readonly log: Log;
	/** Absolute path of the file that receives the serial console (bounded, rewritten at each start). */
	readonly consoleLogPath: string;
	/**
	 * "boot-snapshot" (the default): start from the image's boot snapshot, and make one where there is none.
	 * "cold": boot the kernel and leave no boot snapshot behind (image builds).
	 */
	readonly startFrom?: "boot-snapshot" | "cold";
}

export interface RunOptions {
	readonly timeoutMs: number;
	/** Aborting stops the command as a timeout does. */
	readonly signal?: AbortSignal;
	/** Called with each piece of output as it arrives, before any truncation. Must not throw. */
	readonly onOutput?: (stream: "stdout" | "stderr", bytes: Uint8Array) => void;
	/** Output kept per stream, bytes: the first and the last half of it. */
	readonly maxOutputBytes?: number;
}

/** Output of one stream: all of it, or its head and tail with the number of bytes left out between them. */
export interface CapturedOutput {
	readonly head: Uint8Array;
	readonly tail: Uint8Array;
	readonly omittedBytes: number;
}

export interface RunResult {
	readonly stdout: CapturedOutput;
	readonly stderr: CapturedOutput;
	/** 0..255; 128 + signal for a command killed by one; 124 for one stopped by us. */
	readonly exitCode: number;
	readonly durationMs: number;
	/** The shell's folder afterwards. */
	readonly cwd: string;
	readonly timedOut: boolean;
	/** The caller's signal stopped it. */
	readonly cancelled: boolean;
	/** Things the caller should know, as full sentences: a new shell, a fresh machine, a process limit. */
	readonly notices: readonly string[];
}

export interface ReadFileOptions {
	/** First byte, default 0. */
	readonly offset?: number;
	/** Most bytes to return. */
	readonly limit: number;
}

export interface FileContent {
	readonly bytes: Uint8Array;
	/** Size of the whole file (0 for files of /proc, which tell no size). */
	readonly sizeBytes: number;
	/** More bytes follow after offset + bytes.length. */
	readonly truncated: boolean;
	readonly notices: readonly string[];
}

export interface WriteFileOptions {
	/** Permission bits, e.g. 0o755; default: those of the file that is replaced, else 0644. */
	readonly mode?: number;
	readonly append?: boolean;
}

export interface WrittenFile {
	/** Absolute path in the guest. */
	readonly path: string;
	readonly sizeBytes: number;
	readonly notices: readonly string[];
}

/** The whole machine as bytes, with what a restore must match. */
export interface MachineSaved {
	readonly imageName: string;
	readonly imageDigest: string;
	readonly memoryMiB: number;
	/** Version of the v86 package that wrote the state. */
	readonly emulatorVersion: string;
	/** Connections that were open. */
	readonly openFlows: readonly OpenFlow[];
	/** Length of `state`. */
	readonly stateBytes: number;
	/** The emulator's state, in chunks. Consumed once. */
	readonly state: AsyncIterable<Uint8Array>;
}

/**
 * One guest. Every method starts it when needed (concurrent callers share one start), wakes it when it is paused, and
 * throws SandboxError("machine-failed") when the guest or its process dies meanwhile; the next call then gets a fresh
 * machine from the boot snapshot and says so in `notices`.
 */
export interface Machine {
	readonly state: MachineStateName;
	/** Starts the machine if it is not running. */
	start(): Promise<void>;
	/** Runs a command in the persistent shell. Concurrent calls run one after the other, in order. */
	run(command: string, options: RunOptions): Promise<RunResult>;
	readFile(path: string, options: ReadFileOptions): Promise<FileContent>;
	writeFile(path: string, content: Uint8Array, options?: WriteFileOptions): Promise<WrittenFile>;
	/** Starts or wakes the machine and keeps it from pausing until the function that it gives is called. */
	keepAwake(): Promise<() => void>;
	/** Saves the live machine; `consume` gets the state and must read it to its end. */
	save<T>(consume: (saved: MachineSaved) => Promise<T>): Promise<T>;
	/**
	 * Replaces the machine's state by a saved one; throws SandboxError("mismatch") if it belongs to another image,
	 * memory size or emulator version, before anything is touched.
	 */
	restore(saved: MachineSaved): Promise<void>;
	/** Everything that changed since the boot, as an OCI layer (a tar stream with `.wh.` whiteouts). */
	exportChanges(): AsyncIterable<Uint8Array>;
	/** Ends the machine and its process; resolves within 2 s. */
	stop(): Promise<void>;
}
