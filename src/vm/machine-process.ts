/**
 * The machine process: one emulator, no privileges. It is started under Node's permission model with read access to the
 * package and its image, takes orders over IPC (process-messages.ts) and ends with its parent. The only import of v86.
 */

import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { V86 } from "v86";
import { describeError, SandboxError } from "../errors.js";
import { PIECE_BYTES } from "./channel/guest-channel.js";
import {
	channelWindowPieces,
	deliverFrames,
	onChannelOutput,
	onGuestFrame,
	preferSmallJitModules,
	prepareChannelPort,
	replaceFileStorage,
	sendPiece,
	zeroOnlyUsedMemory,
} from "./emulator-internals.js";
import { ImageStorage } from "./image-storage.js";
import { NETWORK_MTU } from "./machine.js";
import { NetworkLink, provideWebSocket } from "./network-link.js";
import {
	type FromMachine,
	type NetworkAttachment,
	STATE_CHUNK_BYTES,
	STATE_WINDOW_CHUNKS,
	type StartMessage,
	type StateFile,
	type ToMachine,
} from "./process-messages.js";

const VGA_MEMORY_BYTES = 256 * 1024;
/**
 * For v86's own adapters: the addresses that the guest's init gives its card. They answer ARP for the whole network, and DNS from
 * the router's address whatever was asked; a guest takes answers from its name server only.
 */
const ADAPTER_ADDRESSES = { router_ip: "10.0.2.3", vm_ip: "10.0.2.15" } as const;
/** Console bytes are gathered for this long before they are sent. */
const CONSOLE_DELAY_MS = 20;
/** More console bytes than this per gathering are dropped: the guest prints faster than anyone reads. */
const CONSOLE_MAX_BYTES = 64 * 1024;

// v86 prints to the console; standard output is nobody's here, but standard error tells the parent why a process died.
console.log = console.info = console.debug = () => {};

let emulator: V86 | undefined;
let link: NetworkLink | undefined;
let incoming: { readonly state: Uint8Array; received: number } | undefined;
let unacknowledged = 0;
let wakeSender: (() => void) | undefined;

/** Orders are carried out one after the other; bytes and acknowledgements must not wait behind them. */
let orders: Promise<void> = Promise.resolve();

process.on("message", (message: ToMachine) => {
	switch (message.type) {
		case "input":
			sendInput(message.bytes);
			return;
		case "state-ack":
			unacknowledged--;
			wakeSender?.();
			return;
		default:
			orders = orders.then(() => carryOut(message)).catch(fail);
	}
});
process.on("disconnect", () => process.exit(0));
process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

async function carryOut(message: Exclude<ToMachine, { type: "input" | "state-ack" }>): Promise<void> {
	switch (message.type) {
		case "start":
			return start(message);
		case "pause":
			await running().stop();
			link?.pause();
			return send({ type: "paused" });
		case "resume":
			link?.resume();
			return running().run();
		case "save":
			return save();
		case "restore":
			await running().stop();
			incoming = { state: new Uint8Array(message.bytes), received: 0 };
			return;
		case "state-chunk":
			return receiveStateChunk(message.bytes);
	}
}

async function start(message: StartMessage): Promise<void> {
	const { image, from, network } = message;
	const relay = network.kind === "relay" ? new NetworkLink(network.url) : undefined;
	if (network.kind === "v86" && /^wisps?:/.test(network.relayUrl)) provideWebSocket();
	const storage = new ImageStorage(image.filesPath, (file, reason) => {
		fail(
			new SandboxError(
				"corrupt",
				`the image's file ${file} can't be used: ${reason}`,
				`check the image with: sandbox86 image verify ${image.name}`,
			),
		);
	});
	const state = from.kind === "file" ? await readState(from.file) : undefined;
	const v86 = new V86({
		wasm_path: join(dirname(createRequire(import.meta.url).resolve("v86")), "v86.wasm"),
		memory_size: message.memoryMiB * 1024 * 1024,
		vga_memory_size: VGA_MEMORY_BYTES,
		autostart: false,
		disable_keyboard: true,
		disable_mouse: true,
		disable_speaker: true,
		virtio_console: { type: "none" },
		net_device: networkDevice(network),
		// A saved state brings its own tree, kernel and firmware.
		...(from.kind === "kernel"
			? {
					bios: { url: image.biosPath },
					vga_bios: { url: image.vgaBiosPath },
					bzimage: { url: image.kernelPath },
					initrd: { url: image.initramfsPath },
					cmdline: message.commandLine,
					filesystem: { basefs: image.treePath, baseurl: `${image.filesPath}/` },
				}
			: { filesystem: {} }),
	});
	await new Promise<void>((resolve) => v86.add_listener("emulator-loaded", () => resolve()));
	preferSmallJitModules(v86);
	zeroOnlyUsedMemory(v86);
	prepareChannelPort(v86);
	replaceFileStorage(v86, storage);
	v86.add_listener("serial0-output-byte", queueConsoleByte);
	onChannelOutput(v86, (bytes) => send({ type: "output", bytes }));
	if (state !== undefined) await v86.restore_state(state.buffer as ArrayBuffer);
	emulator = v86;
	if (relay !== undefined) {
		relay.attach((frames) => deliverFrames(v86, frames));
		onGuestFrame(v86, (frame) => relay.send(frame));
		link = relay;
		await relay.opened();
	}
	send({ type: "loaded", windowPieces: channelWindowPieces(v86) });
}

/** The card is the same whatever is behind it, so that a snapshot fits any. */
function networkDevice(network: NetworkAttachment) {
	const card = { type: "virtio", mtu: NETWORK_MTU } as const;
	return network.kind === "v86" ? { ...card, ...ADAPTER_ADDRESSES, relay_url: network.relayUrl } : card;
}

function running(): V86 {
	if (emulator === undefined) throw new SandboxError("internal", "the machine process got an order before its start");
	return emulator;
}

function sendInput(bytes: Uint8Array): void {
	for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
		sendPiece(running(), bytes.subarray(at, at + PIECE_BYTES));
	}
}

async function save(): Promise<void> {
	const v86 = running();
	const wasRunning = v86.is_running();
	await v86.stop();
	const state = new Uint8Array(await v86.save_state());
	if (wasRunning) await v86.run();
	send({ type: "saved", bytes: state.length });
	for (let at = 0; at < state.length; at += STATE_CHUNK_BYTES) {
		while (unacknowledged >= STATE_WINDOW_CHUNKS) await new Promise<void>((resolve) => (wakeSender = resolve));
		unacknowledged++;
		send({ type: "state-chunk", bytes: state.subarray(at, at + STATE_CHUNK_BYTES) });
	}
}

async function receiveStateChunk(bytes: Uint8Array): Promise<void> {
	if (incoming === undefined) throw new SandboxError("internal", "state arrived without a restore");
	incoming.state.set(bytes, incoming.received);
	incoming.received += bytes.length;
	send({ type: "state-ack" });
	if (incoming.received < incoming.state.length) return;
	const { state } = incoming;
	incoming = undefined;
	link?.forget();
	await running().restore_state(state.buffer as ArrayBuffer);
	send({ type: "restored" });
}

async function readState(file: StateFile): Promise<Uint8Array> {
	const handle = await open(file.path, "r");
	try {
		const state = new Uint8Array(file.bytes);
		const { bytesRead } = await handle.read(state, 0, file.bytes, file.offset);
		const digest = createHash("sha256").update(state.subarray(0, bytesRead)).digest("hex");
		if (digest === file.sha256) return state;
	} finally {
		await handle.close();
	}
	throw new SandboxError("corrupt", `the state in ${file.path} fails its SHA-256`, "delete the file: it is made again");
}

let consoleBytes: number[] = [];

function queueConsoleByte(byte: number): void {
	if (consoleBytes.length === 0) setTimeout(flushConsole, CONSOLE_DELAY_MS);
	if (consoleBytes.length < CONSOLE_MAX_BYTES) consoleBytes.push(byte);
}

function flushConsole(): void {
	const bytes = Uint8Array.from(consoleBytes);
	consoleBytes = [];
	send({ type: "console", bytes });
}

function send(message: FromMachine): void {
	process.send?.(message);
}

function fail(error: unknown): void {
	const hint = error instanceof SandboxError ? (error.hint ?? "") : "";
	const message = error instanceof SandboxError ? error.message : describeError(error);
	if (consoleBytes.length > 0) flushConsole();
	process.send?.({ type: "failed", message, hint } satisfies FromMachine, () => process.exit(1));
}
