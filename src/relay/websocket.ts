/** The relay's door: a WebSocket server that speaks v86's "wsproxy" protocol, one raw Ethernet frame per binary message. */

import { createServer, type IncomingMessage, type Server, STATUS_CODES } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { errnoOf, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import type { AccessTokens } from "./access.js";
import {
	HANDSHAKE_MS,
	KEEPALIVE_MS,
	LINK_CLOSE_MS,
	MAX_FRAME_BYTES,
	MAX_HANDSHAKE_BYTES,
	MAX_PENDING_CONNECTIONS,
} from "./limits.js";
import type { FrameLink } from "./link.js";
import { formatListenAddress, isLoopback, type ListenAddress } from "./listen-address.js";
import { WebSocketLane } from "./websocket-lane.js";
import { WebSocketLink } from "./websocket-link.js";

/** What a machine's frames are for. */
export interface FrameSink {
	/** One frame; the memory is not used for anything else afterwards. */
	receive(frame: Uint8Array): void;
	/** The frames of one read from the socket are through. */
	endBatch(): void;
	/** The link takes frames again. */
	drained(): void;
	/** The machine is gone; called once, last. */
	closed(): void;
}

export interface LinkServerOptions {
	readonly listen: ListenAddress;
	readonly access: AccessTokens;
	/** Origins of web pages that may connect, such as "https://example.org"; "*" allows all. Programs send none and may. */
	readonly origins: readonly string[];
	readonly maxMachines: number;
	readonly log: Log;
	/** A machine is here. `machine` is its name, if it has one; an older connection of that name has been closed. */
	connect(link: FrameLink, machine: string | undefined): FrameSink;
}

export interface LinkServer {
	/** "ws://HOST:PORT", without the path that opens it. */
	readonly origin: string;
	readonly port: number;
	/** Ends all connections; done when nothing is left of them. */
	close(): Promise<void>;
}

/** RFC 6455 7.4.1; 1013 is in IANA's registry; from 4000 on private use. */
const CLOSE_GOING_AWAY = 1001;
const CLOSE_UNSUPPORTED_DATA = 1003;
const CLOSE_TRY_AGAIN_LATER = 1013;
const CLOSE_REPLACED = 4000;
const CLOSE_ENDED = 4001;
/** RFC 6455 5.5: 125 bytes with the code. */
const MAX_REASON_BYTES = 123;

const NOTHING = Buffer.alloc(0);

/** Listens; throws SandboxError("invalid-argument") where the address can't be had. */
export async function listenForMachines(options: LinkServerOptions): Promise<LinkServer> {
	const server = new MachineServer(options);
	await server.listen();
	return server;
}

class MachineServer implements LinkServer {
	readonly #options: LinkServerOptions;
	readonly #http: Server;
	readonly #webSockets: WebSocketServer;
	readonly #connections = new Set<Connection>();
	readonly #named = new Map<string, Connection>();

	constructor(options: LinkServerOptions) {
		this.#options = options;
		this.#http = createServer(
			{
				headersTimeout: HANDSHAKE_MS,
				requestTimeout: HANDSHAKE_MS,
				connectionsCheckingInterval: HANDSHAKE_MS,
				maxHeaderSize: MAX_HANDSHAKE_BYTES,
				keepAlive: false,
				noDelay: true,
			},
			(_request, response) => {
				response.writeHead(426, { Connection: "close", "Content-Type": "text/plain", Upgrade: "websocket" });
				response.end("a WebSocket is needed\n");
			},
		);
		this.#http.maxConnections = options.maxMachines + MAX_PENDING_CONNECTIONS;
		this.#http.on("upgrade", (request, socket, head) => this.#upgrade(request, socket as Socket, head));
		this.#webSockets = new WebSocketServer({
			noServer: true,
			clientTracking: false,
			perMessageDeflate: false,
			skipUTF8Validation: true,
			maxPayload: MAX_FRAME_BYTES,
		});
	}

	get origin(): string {
		return `ws://${formatListenAddress({ host: this.#address.address, port: this.port })}`;
	}

	get port(): number {
		return this.#address.port;
	}

	get #address(): AddressInfo {
		return this.#http.address() as AddressInfo;
	}

	async listen(): Promise<void> {
		const { listen, log } = this.#options;
		if (!isLoopback(listen.host)) {
			log.warn(
				`the relay listens on ${formatListenAddress(listen)}: whoever reaches it and knows the token has this host's network, ` +
					"and the frames are not encrypted",
			);
		}
		await new Promise<void>((resolve, reject) => {
			this.#http.once("error", (error) => reject(listenError(listen, error)));
			this.#http.listen({ host: listen.host, port: listen.port }, resolve);
		});
		this.#http.removeAllListeners("error");
		this.#http.on("error", (error) => log.warn(`the relay's listener: ${error.message}`));
	}

	async close(): Promise<void> {
		const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
		this.#http.closeAllConnections();
		await Promise.all([...this.#connections].map((connection) => connection.close(CLOSE_GOING_AWAY, "the relay ends")));
		this.#webSockets.close();
		await closed;
	}

	#upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
		socket.on("error", () => socket.destroy());
		const { access, origins, log } = this.#options;
		const opened = access.check(request.url ?? "");
		if (opened.kind === "unknown-path") {
			refuse(socket, 404, "there is nothing here: the URL's path is its token");
			return;
		}
		if (opened.kind === "wrong-token") {
			refuse(socket, 401, "the token is not the one of this relay");
			return;
		}
		const { origin } = request.headers;
		if (origin !== undefined && !origins.includes("*") && !origins.includes(origin)) {
			const shown = origin.slice(0, 200);
			log.warn(`a web page of ${shown} was refused (hint: --origin ${shown} allows it)`);
			refuse(socket, 403, "web pages of this origin are not allowed");
			return;
		}
		socket.setNoDelay(true);
		// A client whose host is gone is noticed in the end.
		socket.setKeepAlive(true, KEEPALIVE_MS);
		if (head.length > 0) socket.unshift(head);
		const connection = new Connection(socket, opened.machine);
		this.#webSockets.handleUpgrade(request, connection.lane, NOTHING, (webSocket) => {
			this.#admit(connection, webSocket);
		});
	}

	#admit(connection: Connection, webSocket: WebSocket): void {
		const { maxMachines, log } = this.#options;
		const { machine } = connection;
		connection.attach(webSocket, log, () => this.#forget(connection));
		this.#connections.add(connection);
		const older = machine === undefined ? undefined : this.#named.get(machine);
		if (older !== undefined) {
			void older.close(CLOSE_REPLACED, "another connection took this machine's place");
			this.#forget(older);
		}
		if (this.#connections.size > maxMachines) {
			log.warn(`a machine was refused: there are ${maxMachines} already`);
			void connection.close(CLOSE_TRY_AGAIN_LATER, `there are ${maxMachines} machines already`);
			return;
		}
		if (machine !== undefined) this.#named.set(machine, connection);
		connection.sink = this.#options.connect(connection.link, machine);
	}

	#forget(connection: Connection): void {
		this.#connections.delete(connection);
		const { machine } = connection;
		if (machine !== undefined && this.#named.get(machine) === connection) this.#named.delete(machine);
	}
}

/** One client. Its sink gets frames until the connection begins to close, and is told so once. */
class Connection {
	readonly machine: string | undefined;
	readonly lane: WebSocketLane;
	readonly link: WebSocketLink;
	readonly #socket: Socket;
	#webSocket: WebSocket | undefined;
	#sink: FrameSink | undefined;
	#isClosing = false;
	#closed: Promise<void> = Promise.resolve();

	constructor(socket: Socket, machine: string | undefined) {
		this.machine = machine;
		this.#socket = socket;
		this.lane = new WebSocketLane(socket, {
			frame: (frame) => this.#sink?.receive(frame),
			endBatch: () => this.#sink?.endBatch(),
			ending: () => this.#release(),
		});
		this.lane.on("error", () => {});
		this.link = new WebSocketLink(socket, {
			drained: () => this.#sink?.drained(),
			overflowed: () => void this.close(CLOSE_TRY_AGAIN_LATER, "the client reads too little"),
			closed: (reason) => void this.close(CLOSE_ENDED, reason),
		});
	}

	set sink(sink: FrameSink) {
		if (this.#isClosing) sink.closed();
		else this.#sink = sink;
	}

	attach(webSocket: WebSocket, log: Log, onEnd: () => void): void {
		this.#webSocket = webSocket;
		this.#closed = new Promise((resolve) => {
			webSocket.once("close", (code) => {
				this.#release();
				onEnd();
				log.debug(`machine ${this.machine ?? "without a name"} disconnected, code ${code}`);
				resolve();
			});
		});
		webSocket.on("error", (error) => {
			this.#release();
			log.info(`machine ${this.machine ?? "without a name"} broke the WebSocket protocol: ${error.message}`);
		});
		webSocket.on("message", (data, isBinary) => {
			if (!isBinary) void this.close(CLOSE_UNSUPPORTED_DATA, "frames are binary messages");
			else if (!this.#isClosing && data instanceof Buffer) {
				this.#sink?.receive(data);
				this.#sink?.endBatch();
			}
		});
		log.debug(`machine ${this.machine ?? "without a name"} connected`);
	}

	/** Begins to close; done when the socket is gone. */
	close(code: number, reason: string): Promise<void> {
		if (!this.#isClosing) {
			this.#release();
			this.#webSocket?.close(code, shortened(reason));
		}
		return this.#closed;
	}

	#release(): void {
		if (this.#isClosing) return;
		this.#isClosing = true;
		this.link.end();
		this.lane.mute();
		const sink = this.#sink;
		this.#sink = undefined;
		destroyLater(this.#socket);
		sink?.closed();
	}
}

/** As much of it as a close message holds. */
function shortened(reason: string): string {
	return new TextDecoder().decode(Buffer.from(reason).subarray(0, MAX_REASON_BYTES), { stream: true });
}

/** A client that does not take part in the end of its connection is cut off. */
function destroyLater(socket: Socket): void {
	const cut = setTimeout(() => socket.destroy(), LINK_CLOSE_MS);
	cut.unref();
	socket.once("close", () => clearTimeout(cut));
}

function refuse(socket: Socket, status: number, reason: string): void {
	const body = `${reason}\n`;
	socket.end(
		`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: text/plain\r\n` +
			`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
		() => socket.destroy(),
	);
	destroyLater(socket);
}

function listenError(listen: ListenAddress, error: Error): SandboxError {
	return new SandboxError(
		"invalid-argument",
		`the relay can't listen on ${formatListenAddress(listen)}: ${errnoOf(error) ?? error.message}`,
		"choose another address with --listen HOST:PORT; port 0 is a free one",
		{ cause: error },
	);
}
