/** What the server's process and the machine process say to each other over Node's IPC channel. */

import type { MachineImage } from "./machine-image.js";

/** A saved state inside a file that the machine process may read: bytes [offset, offset + bytes). */
export interface StateFile {
	readonly path: string;
	readonly offset: number;
	readonly bytes: number;
	/** SHA-256 (hex) of those bytes. */
	readonly sha256: string;
}

/** Where the frames of the guest's network card go. */
export type NetworkAttachment =
	| { readonly kind: "none" }
	/** A relay that speaks v86's wsproxy protocol: one Ethernet frame per binary message. */
	| { readonly kind: "relay"; readonly url: string }
	/** One of v86's own adapters, by the name that its relay_url has: "fetch" (HTTP by fetch), "wisp://…" or "wisps://…". */
	| { readonly kind: "v86"; readonly relayUrl: string };

export interface StartMessage {
	readonly type: "start";
	readonly image: MachineImage;
	readonly memoryMiB: number;
	readonly commandLine: string;
	readonly network: NetworkAttachment;
	/** Boot the kernel, restore a file, or wait for a "restore" message. */
	readonly from:
		| { readonly kind: "kernel" }
		| { readonly kind: "file"; readonly file: StateFile }
		| { readonly kind: "empty" };
}

/** Chunks of a state in transit, either way. At most STATE_WINDOW_CHUNKS are unacknowledged. */
export const STATE_CHUNK_BYTES = 1024 * 1024;
export const STATE_WINDOW_CHUNKS = 8;

export type ToMachine =
	| StartMessage
	/** Bytes for the guest's port, cut into pieces there. */
	| { readonly type: "input"; readonly bytes: Uint8Array }
	| { readonly type: "pause" }
	| { readonly type: "resume" }
	| { readonly type: "save" }
	/** A restore begins: `bytes` of state follow in chunks. */
	| { readonly type: "restore"; readonly bytes: number }
	| { readonly type: "state-chunk"; readonly bytes: Uint8Array }
	| { readonly type: "state-ack" };

export type FromMachine =
	/** The emulator is loaded (and restored) but stopped; it takes `windowPieces` pieces at once. */
	| { readonly type: "loaded"; readonly windowPieces: number }
	/** One frame from the guest's port. */
	| { readonly type: "output"; readonly bytes: Uint8Array }
	/** Bytes of the serial console. */
	| { readonly type: "console"; readonly bytes: Uint8Array }
	| { readonly type: "paused" }
	/** The state is saved (the machine runs on): `bytes` of it follow in chunks. */
	| { readonly type: "saved"; readonly bytes: number }
	| { readonly type: "state-chunk"; readonly bytes: Uint8Array }
	| { readonly type: "state-ack" }
	/** The state is in place; the machine is stopped. */
	| { readonly type: "restored" }
	/** The machine can't go on; the process ends. */
	| { readonly type: "failed"; readonly message: string; readonly hint: string };
