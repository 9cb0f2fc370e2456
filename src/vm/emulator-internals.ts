/**
 * The parts of v86 (0.5.462) that its types don't promise, each looked for before it is used. Nothing else of the project
 * touches v86's inside.
 */

import { SandboxError } from "../errors.js";

/** src/virtio_console.js: port 0 has queues 0 and 1, port n has 2n + 2 (receive) and 2n + 3 (transmit). */
const CHANNEL_PORT = 1;
const CHANNEL_RECEIVE_QUEUE = 2 * CHANNEL_PORT + 2;
const CHANNEL_INPUT_EVENT = `virtio-console${CHANNEL_PORT}-input-bytes`;
const CHANNEL_OUTPUT_EVENT = `virtio-console${CHANNEL_PORT}-output-bytes`;
/** Virtio 1.2, 5.3.6.2. */
const EVENT_CONSOLE_PORT = 4;
/** Receive buffers of the channel's port; v86 offers 16, the guest's driver takes what the device says. */
const RECEIVE_QUEUE_SIZE = 128;
/** Buffers left unused, so that none is ever missing. */
const SPARE_BUFFERS = 2;

/** Virtio 1.2, 5.1.2 and 5.1.6: the first queue receives; a header without offloads is all zeros. */
const NETWORK_RECEIVE_QUEUE = 0;
const VIRTIO_NET_HEADER_BYTES = 12;

interface VirtQueue {
	size: number;
	size_supported: number;
	set_size(size: number): void;
	is_configured(): unknown;
	count_requests(): number;
	pop_request(): { set_next_blob(bytes: Uint8Array): void };
	push_reply(chain: unknown): void;
	flush_replies(): void;
}
interface VirtioConsole {
	virtio: { queues: VirtQueue[] };
	SendEvent(port: number, event: number, value: number): void;
}
interface FileStorage {
	read(name: string, offset: number, count: number, fileSize?: number): Promise<Uint8Array>;
	cache(name: string, content: Uint8Array): Promise<void>;
	uncache(name: string): void;
}
interface Cpu {
	devices?: { virtio_console?: VirtioConsole; virtio_net?: { virtio: { queues: VirtQueue[] } } };
	set_jit_config?: (index: number, value: number) => void;
	zero_memory?: (start: number, bytes: number) => void;
	is_memory_zeroed?: (start: number, bytes: number) => boolean | number;
}
interface Internals {
	v86?: { cpu?: Cpu };
	fs9p?: { storage?: FileStorage };
	bus?: { send(event: string, value: unknown): void };
	is_running?: () => boolean;
	add_listener?: (event: string, listener: (value: never) => void) => void;
}

/** JIT setting 1: pages per WebAssembly module (src/rust/jit.rs). One page halves what a starting program costs. */
const JIT_MAX_PAGES = 1;

export function preferSmallJitModules(emulator: object): void {
	(emulator as Internals).v86?.cpu?.set_jit_config?.(JIT_MAX_PAGES, 1);
}

/** Memory is looked at in pieces of this size: a whole number of pages, few calls for a gigabyte. */
const ZEROED_PIECE_BYTES = 64 * 1024;

/**
 * Before a state is put into the guest's memory v86 writes zeros over all of it, and the host then holds every page of it.
 * With this the memory of an emulator that has not run yet is left alone, and later only pieces that hold something are written.
 */
export function zeroOnlyUsedMemory(emulator: object): void {
	const cpu = (emulator as Internals).v86?.cpu;
	const zero = cpu?.zero_memory;
	const isZero = cpu?.is_memory_zeroed;
	if (cpu === undefined || zero === undefined || isZero === undefined) return;
	let unused = !(emulator as Internals).is_running?.();
	(emulator as Internals).add_listener?.("emulator-started", () => (unused = false));
	cpu.zero_memory = (start, bytes) => {
		if (unused) return;
		for (let at = start; at < start + bytes; at += ZEROED_PIECE_BYTES) {
			const length = Math.min(ZEROED_PIECE_BYTES, start + bytes - at);
			if (!isZero(at, length)) zero(at, length);
		}
	};
}

/** Makes the channel's port a plain one (no tty) with a deep receive queue. Before the guest boots or is restored. */
export function prepareChannelPort(emulator: object): void {
	const device = consoleDevice(emulator);
	const sendEvent = device.SendEvent;
	device.SendEvent = (port, event, value) => {
		if (event !== EVENT_CONSOLE_PORT) sendEvent.call(device, port, event, value);
	};
	const queue = receiveQueue(device);
	queue.size_supported = RECEIVE_QUEUE_SIZE;
	queue.set_size(RECEIVE_QUEUE_SIZE);
}

/** Pieces that the guest's port takes at once. */
export function channelWindowPieces(emulator: object): number {
	return receiveQueue(consoleDevice(emulator)).size - SPARE_BUFFERS;
}

/** Sends one piece (at most a receive buffer) to the guest; v86 drops it when the guest has no buffer free. */
export function sendPiece(emulator: object, piece: Uint8Array): void {
	const bus = (emulator as Internals).bus;
	if (bus === undefined) throw unsupported("bus.send");
	bus.send(CHANNEL_INPUT_EVENT, piece);
}

/** Calls `listener` with each write of the guest to the channel's port. */
export function onChannelOutput(emulator: object, listener: (bytes: Uint8Array) => void): void {
	(emulator as Internals).add_listener?.(CHANNEL_OUTPUT_EVENT, listener);
}

/** Calls `listener` with each Ethernet frame that the guest sends; the bytes are the listener's. */
export function onGuestFrame(emulator: object, listener: (frame: Uint8Array) => void): void {
	(emulator as Internals).add_listener?.("net0-send", listener);
}

/**
 * Gives the guest's network card as many of the frames as it has buffers for, with one interrupt for all; tells how many.
 * None before the guest's driver has set the card up: v86 would write into memory that the guest never offered.
 */
export function deliverFrames(emulator: object, frames: readonly Uint8Array[]): number {
	const queue = (emulator as Internals).v86?.cpu?.devices?.virtio_net?.virtio.queues[NETWORK_RECEIVE_QUEUE];
	if (queue === undefined || typeof queue.count_requests !== "function") throw unsupported("virtio_net queue");
	if (!queue.is_configured()) return 0;
	const count = Math.min(frames.length, queue.count_requests());
	for (let i = 0; i < count; i++) {
		const frame = frames[i] ?? new Uint8Array(0);
		const packet = new Uint8Array(VIRTIO_NET_HEADER_BYTES + frame.length);
		packet.set(frame, VIRTIO_NET_HEADER_BYTES);
		const chain = queue.pop_request();
		chain.set_next_blob(packet);
		queue.push_reply(chain);
	}
	if (count > 0) queue.flush_replies();
	return count;
}

/** Lets the guest's 9p tree read its files from `storage`. */
export function replaceFileStorage(emulator: object, storage: FileStorage): void {
	const fs = (emulator as Internals).fs9p;
	if (fs?.storage === undefined) throw unsupported("fs9p.storage");
	fs.storage = storage;
}

function consoleDevice(emulator: object): VirtioConsole {
	const device = (emulator as Internals).v86?.cpu?.devices?.virtio_console;
	if (device === undefined || typeof device.SendEvent !== "function") throw unsupported("virtio_console.SendEvent");
	return device;
}

function receiveQueue(device: VirtioConsole): VirtQueue {
	const queue = device.virtio?.queues?.[CHANNEL_RECEIVE_QUEUE];
	if (queue === undefined || typeof queue.set_size !== "function") throw unsupported("virtio.queues[].set_size");
	return queue;
}

function unsupported(what: string): SandboxError {
	return new SandboxError(
		"internal",
		`this version of v86 has no ${what}`,
		"install the version of v86 that package.json names",
	);
}
