import { connect, type Socket } from "node:net";
import { WebSocket } from "ws";

/** How a connection ended. */
export interface Ending {
	readonly code: number;
	readonly reason: string;
}

/** A client as v86 is one: collects frames and its end. */
export class TestClient {
	readonly webSocket: WebSocket;
	readonly frames: Buffer[] = [];
	readonly ended: Promise<Ending>;
	#arrived: (() => void) | undefined;

	private constructor(webSocket: WebSocket) {
		this.webSocket = webSocket;
		webSocket.on("message", (data: Buffer) => {
			this.frames.push(data);
			this.#arrived?.();
		});
		webSocket.on("error", () => {});
		this.ended = new Promise((resolve) => {
			webSocket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
		});
	}

	/** Connects; rejects with the HTTP status ("401") where the upgrade is refused. */
	static connect(url: string, options: { origin?: string } = {}): Promise<TestClient> {
		return new Promise((resolve, reject) => {
			const webSocket = new WebSocket(url, { perMessageDeflate: false, ...options });
			const client = new TestClient(webSocket);
			webSocket.on("open", () => resolve(client));
			webSocket.on("unexpected-response", (_request, response) => {
				reject(new Error(String(response.statusCode)));
				response.destroy();
			});
			webSocket.on("error", reject);
		});
	}

	send(frame: Uint8Array): void {
		this.webSocket.send(frame);
	}

	/** The next `count` frames, taken off. */
	async take(count: number): Promise<Buffer[]> {
		while (this.frames.length < count) {
			await new Promise<void>((resolve) => {
				this.#arrived = resolve;
			});
		}
		return this.frames.splice(0, count);
	}

	close(): Promise<Ending> {
		this.webSocket.close();
		return this.ended;
	}
}

/** A connected socket behind the handshake, for streams that no library would send. */
export async function rawConnection(url: string): Promise<Socket> {
	const { hostname, port, pathname } = new URL(url);
	const socket = connect(Number(port), hostname);
	socket.on("error", () => {});
	socket.write(
		`GET ${pathname} HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	);
	let answer = "";
	while (!answer.endsWith("\r\n\r\n")) {
		answer += await new Promise<string>((resolve) => socket.once("data", (data) => resolve(data.toString("latin1"))));
	}
	if (!answer.startsWith("HTTP/1.1 101 ")) throw new Error(answer);
	return socket;
}
