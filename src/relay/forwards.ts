import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import { errnoOf, SandboxError } from "../errors.js";
import type { UdpForwardPort, UdpForwards } from "./flows/udp-forwards.js";
import { MAX_FORWARDS } from "./limits.js";

export type ForwardProtocol = "tcp" | "udp";

/** A port of the host's loopback that leads to one of the guest. */
export interface Forward {
	readonly protocol: ForwardProtocol;
	readonly hostPort: number;
	readonly guestPort: number;
	/** "http://127.0.0.1:PORT", or "udp://127.0.0.1:PORT". */
	readonly url: string;
	/** Stops listening; flows that are open go on. */
	close(): void;
}

const LOOPBACK = "127.0.0.1";

/** Where the forwards of a network hand over what arrives. */
export interface ForwardTargets {
	/** A client's connection, paused. */
	acceptTcp(socket: Socket, guestPort: number): void;
	readonly udp: UdpForwards;
}

/** The forwards of one machine; they listen on the host's loopback only, and end with the machine. */
export class Forwards {
	readonly #targets: ForwardTargets;
	readonly #open = new Set<Forward>();
	#isClosed = false;

	constructor(targets: ForwardTargets) {
		this.#targets = targets;
	}

	get list(): readonly Forward[] {
		return [...this.#open];
	}

	/**
	 * Listens on `hostPort` (0: any free one) for `guestPort`. Throws SandboxError: "invalid-argument" for what is no port,
	 * "already-exists" for a port in use.
	 */
	async open(hostPort: number, guestPort: number, protocol: ForwardProtocol): Promise<Forward> {
		checkPort("host", hostPort, 0);
		checkPort("guest", guestPort, 1);
		if (this.#open.size >= MAX_FORWARDS) {
			throw new SandboxError(
				"busy",
				`a machine has at most ${MAX_FORWARDS} port forwards`,
				"Close one of them first, or serve several things behind one port.",
			);
		}
		const listener =
			protocol === "tcp" ? await this.#listenTcp(hostPort, guestPort) : await this.#listenUdp(hostPort, guestPort);
		if (this.#isClosed) {
			listener.close();
			throw new SandboxError("cancelled", "the machine's network was closed while a port was being forwarded");
		}
		const forward: Forward = {
			protocol,
			hostPort: listener.hostPort,
			guestPort,
			url: `${protocol === "tcp" ? "http" : "udp"}://${LOOPBACK}:${listener.hostPort}`,
			close: () => {
				if (this.#open.delete(forward)) listener.close();
			},
		};
		this.#open.add(forward);
		return forward;
	}

	closeAll(): void {
		this.#isClosed = true;
		for (const forward of this.#open) forward.close();
	}

	async #listenTcp(hostPort: number, guestPort: number): Promise<{ hostPort: number; close(): void }> {
		const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
			this.#targets.acceptTcp(socket, guestPort),
		);
		await listening(server, (done) => server.listen({ host: LOOPBACK, port: hostPort }, done), hostPort, "TCP");
		const address = server.address();
		const bound = typeof address === "object" && address !== null ? address.port : hostPort;
		return { hostPort: bound, close: () => void server.close() };
	}

	async #listenUdp(hostPort: number, guestPort: number): Promise<{ hostPort: number; close(): void }> {
		const socket = createSocket("udp4");
		await listening(socket, (done) => socket.bind({ address: LOOPBACK, port: hostPort }, done), hostPort, "UDP");
		const port: UdpForwardPort = this.#targets.udp.open(socket, guestPort);
		return { hostPort: socket.address().port, close: () => port.close() };
	}
}

function checkPort(side: "host" | "guest", port: number, least: number): void {
	if (Number.isInteger(port) && port >= least && port <= 65_535) return;
	throw new SandboxError("invalid-argument", `${port} is not a ${side} port`, `Name a port from ${least} to 65535.`);
}

/** Starts the listener and waits until it listens; maps what can go wrong. */
async function listening(
	listener: Server | UdpSocket,
	start: (done: () => void) => void,
	port: number,
	protocol: string,
): Promise<void> {
	await new Promise<void>((resolve, reject) => {
		listener.once("error", (error: Error) => reject(listenError(error, port, protocol)));
		start(resolve);
	});
	listener.removeAllListeners("error");
	// What fails later (a lack of file descriptors in accept) costs that one client, not the forward.
	listener.on("error", () => {});
}

function listenError(error: Error, port: number, protocol: string): SandboxError {
	const cause = { cause: error };
	switch (errnoOf(error)) {
		case "EADDRINUSE":
			return new SandboxError(
				"already-exists",
				`${protocol} port ${port} of the host is in use`,
				"Choose another host port, or 0 for any free one.",
				cause,
			);
		case "EACCES":
			return new SandboxError(
				"invalid-argument",
				`${protocol} port ${port} of the host needs privilege`,
				"Choose a host port from 1024 on, or 0 for any free one.",
				cause,
			);
		default:
			return new SandboxError(
				"network",
				`cannot listen on ${protocol} port ${port}: ${error.message}`,
				undefined,
				cause,
			);
	}
}
