import type { Socket as UdpSocket } from "node:dgram";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { HostSockets } from "../../../../src/relay/egress/host-sockets.js";
import type { PingOutcome } from "../../../../src/relay/egress/ping.js";

/** A host's TCP socket in memory: the test plays the server behind it. */
export class FakeSocket extends Duplex {
	connecting = true;
	/** Everything that the relay has written. */
	readonly received: Uint8Array[] = [];
	/** The relay has ended its direction. */
	wasEnded = false;
	wasReset = false;
	/** While false the server reads nothing: a write stays with the socket. */
	isReading = true;
	#stalled: (() => void) | undefined;

	constructor(
		readonly address: string,
		readonly port: number,
	) {
		super({ allowHalfOpen: true, highWaterMark: 65_536 });
	}

	get receivedBytes(): Buffer {
		return Buffer.concat(this.received);
	}

	/** The server accepts. */
	accept(): void {
		this.connecting = false;
		this.emit("connect");
	}

	fail(code: string): void {
		this.destroy(Object.assign(new Error(code), { code }));
	}

	/** The server reads again. */
	readOn(): void {
		this.isReading = true;
		this.#stalled?.();
		this.#stalled = undefined;
	}

	resetAndDestroy(): this {
		this.wasReset = true;
		this.destroy();
		return this;
	}

	override _read(): void {}

	override _write(bytes: Uint8Array, _encoding: string, done: () => void): void {
		this.received.push(new Uint8Array(bytes));
		if (this.isReading) done();
		else this.#stalled = done;
	}

	override _final(done: () => void): void {
		this.wasEnded = true;
		done();
	}
}

/** A host's UDP socket in memory. */
export class FakeUdpSocket extends EventEmitter {
	readonly sent: { readonly bytes: Uint8Array; readonly port: number; readonly address: string }[] = [];
	isClosed = false;

	/** `localPort`: of the host's localhost, which it is connected to. */
	constructor(readonly localPort?: number) {
		super();
	}

	send(bytes: Uint8Array, port: unknown, address?: unknown): void {
		if (typeof port === "number") this.sent.push({ bytes, port, address: String(address) });
		else this.sent.push({ bytes, port: this.localPort ?? 0, address: "127.0.0.1" });
	}

	getSendQueueSize(): number {
		return 0;
	}

	close(): void {
		this.isClosed = true;
	}

	/** A datagram arrives. */
	arrive(bytes: Uint8Array, address: string, port: number): void {
		this.emit("message", Buffer.from(bytes), { address, port, family: "IPv4", size: bytes.length });
	}
}

/** HostSockets that record who was contacted. */
export class FakeHost implements HostSockets {
	readonly tcp: FakeSocket[] = [];
	readonly udp: FakeUdpSocket[] = [];
	readonly pinged: string[] = [];
	pingOutcome: PingOutcome | Promise<PingOutcome> = { kind: "reply" };
	/** What is done with each new connection. */
	onConnect: (socket: FakeSocket) => void = () => {};

	connectTcp(address: string, port: number): Socket {
		const socket = new FakeSocket(address, port);
		this.tcp.push(socket);
		this.onConnect(socket);
		return socket as unknown as Socket;
	}

	connectLocalhost(port: number): Socket {
		return this.connectTcp("localhost", port);
	}

	bindUdp(): UdpSocket {
		const socket = new FakeUdpSocket();
		this.udp.push(socket);
		return socket as unknown as UdpSocket;
	}

	connectLocalUdp(port: number): UdpSocket {
		const socket = new FakeUdpSocket(port);
		this.udp.push(socket);
		return socket as unknown as UdpSocket;
	}

	ping(address: string): Promise<PingOutcome> {
		this.pinged.push(address);
		return Promise.resolve(this.pingOutcome);
	}

	/** The last connection. */
	get last(): FakeSocket {
		const socket = this.tcp.at(-1);
		if (socket === undefined) throw new Error("the host was not contacted");
		return socket;
	}
}
