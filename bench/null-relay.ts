/**
 * What a guest can have of a relay that does nothing: no host sockets, no checks, no recovery from loss. It accepts every
 * TCP connection, answers any HTTP GET with as many bytes as asked for, as fast as the guest's window lets it, and swallows
 * everything else.
 */

import { EventEmitter, once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import type { TcpOptions, TcpSegment } from "../src/relay/wire/tcp.js";
import { built } from "./built.js";

const { GATEWAY_MAC } = await built<typeof import("../src/relay/addresses.js")>("relay/addresses.js");
const ethernet = await built<typeof import("../src/relay/wire/ethernet.js")>("relay/wire/ethernet.js");
const arp = await built<typeof import("../src/relay/wire/arp.js")>("relay/wire/arp.js");
const ipv4 = await built<typeof import("../src/relay/wire/ipv4.js")>("relay/wire/ipv4.js");
const tcp = await built<typeof import("../src/relay/wire/tcp.js")>("relay/wire/tcp.js");

/** RFC 9293 3.1: an IPv4 and a TCP header without options. */
const HEADER_BYTES = 40;
/** RFC 7323: the largest window, 65,535 bytes shifted by 8. */
const WINDOW = 65_535;
const WINDOW_SCALE = 8;
const INITIAL_SEQUENCE = 1;
const END_OF_HEADERS = "\r\n\r\n";
const NOTHING = new Uint8Array(0);

interface Addresses {
	readonly guest: number;
	readonly remote: number;
	readonly guestMac: number;
}

interface Content {
	readonly bytes: number;
	readonly maximumSegmentSize: number;
	/** Bytes of a connection that are nothing but swallowed. */
	swallowed(bytes: number): void;
}

/** A connection of the guest: sequence numbers wrap, positions (bytes since the first one) do not. */
class NullConnection {
	readonly #send: (segment: TcpSegment) => void;
	readonly #content: Content;
	readonly #ports: { readonly sourcePort: number; readonly destinationPort: number };
	readonly #filler: Uint8Array;
	readonly #scale: number;
	#request = "";
	/** Next sequence number that is expected of the guest. */
	#expected: number;
	#owesAck = false;
	/** Response header; the rest of the response is filler. */
	#head: Uint8Array = NOTHING;
	#length: number | undefined;
	#sent = 0;
	#acknowledged = 0;
	#guestEnded = false;
	#isEndSent = false;

	constructor(syn: TcpSegment, content: Content, send: (segment: TcpSegment) => void) {
		this.#send = send;
		this.#content = content;
		this.#ports = { sourcePort: syn.destinationPort, destinationPort: syn.sourcePort };
		this.#filler = new Uint8Array(content.maximumSegmentSize);
		this.#scale = syn.options.windowScale ?? 0;
		this.#expected = (syn.sequence + 1) >>> 0;
		this.#emit(tcp.TCP_SYN | tcp.TCP_ACK, INITIAL_SEQUENCE, NOTHING, {
			maximumSegmentSize: content.maximumSegmentSize,
			windowScale: WINDOW_SCALE,
		});
	}

	receive(segment: TcpSegment): void {
		// One byte for our SYN; a difference of 32 bits, as fewer than 2³¹ bytes are sent.
		const acknowledged = (segment.acknowledgment - INITIAL_SEQUENCE - 1) | 0;
		if (acknowledged > this.#acknowledged) this.#acknowledged = acknowledged;
		if (segment.payload.length > 0) this.#take(segment);
		if ((segment.flags & tcp.TCP_FIN) !== 0 && segment.sequence + segment.payload.length === this.#expected) {
			this.#expected = (this.#expected + 1) >>> 0;
			this.#owesAck = true;
			this.#guestEnded = true;
			this.#length ??= 0;
		}
		if (this.#length !== undefined) this.#fill(segment.window << this.#scale);
	}

	/** Once for all frames that arrive together. */
	acknowledge(): void {
		if (this.#owesAck) this.#emit(tcp.TCP_ACK, this.#sequence, NOTHING);
	}

	get isOver(): boolean {
		return this.#guestEnded && this.#isEndSent && !this.#owesAck;
	}

	#take({ sequence, payload }: TcpSegment): void {
		this.#owesAck = true;
		if (sequence !== this.#expected) return;
		this.#expected = (sequence + payload.length) >>> 0;
		if (this.#length !== undefined) return;
		if (this.#request === "" && payload[0] !== "G".charCodeAt(0)) {
			this.#content.swallowed(payload.length);
			return;
		}
		this.#request += Buffer.from(payload).toString("latin1");
		if (!this.#request.endsWith(END_OF_HEADERS)) return;
		this.#head = Buffer.from(`HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ${this.#content.bytes}\r\n\r\n`);
		this.#length = this.#head.length + this.#content.bytes;
	}

	#fill(window: number): void {
		const length = this.#length ?? 0;
		while (this.#sent < length) {
			const room = this.#acknowledged + window - this.#sent;
			const size = Math.min(this.#filler.length, length - this.#sent);
			if (room < size) return;
			const bytes = this.#sent < this.#head.length ? this.#head.subarray(this.#sent) : this.#filler.subarray(0, size);
			this.#emit(tcp.TCP_ACK, this.#sequence, bytes);
			this.#sent += bytes.length;
		}
		if (this.#isEndSent) return;
		this.#emit(tcp.TCP_ACK | tcp.TCP_FIN, this.#sequence, NOTHING);
		this.#isEndSent = true;
	}

	get #sequence(): number {
		return (INITIAL_SEQUENCE + 1 + this.#sent + (this.#isEndSent ? 1 : 0)) >>> 0;
	}

	#emit(flags: number, sequence: number, payload: Uint8Array, options: TcpOptions = tcp.NO_TCP_OPTIONS): void {
		this.#owesAck = false;
		const { sourcePort, destinationPort } = this.#ports;
		const acknowledgment = this.#expected;
		this.#send({ sourcePort, destinationPort, sequence, acknowledgment, flags, window: WINDOW, options, payload });
	}
}

/** One guest's wire. */
class NullNetwork {
	readonly #socket: Socket;
	readonly #webSocket: WebSocket;
	readonly #content: Content;
	readonly #connections = new Map<string, NullConnection>();
	#isScheduled = false;
	#identification = 0;

	constructor(socket: Socket, webSocket: WebSocket, content: Content) {
		this.#socket = socket;
		this.#webSocket = webSocket;
		this.#content = content;
		webSocket.on("message", (data) => this.#receive(data as Buffer));
		webSocket.on("error", () => {});
	}

	#receive(bytes: Uint8Array): void {
		const frame = ethernet.parseEthernetFrame(bytes);
		if (!frame.ok) return;
		this.#begin();
		const { etherType, payload, source } = frame.value;
		if (etherType === ethernet.ETHERTYPE_ARP) this.#answerArp(payload);
		if (etherType === ethernet.ETHERTYPE_IPV4) this.#receivePacket(payload, source);
	}

	/** All that is sent in one turn of the event loop goes out in one write. */
	#begin(): void {
		if (this.#isScheduled) return;
		this.#isScheduled = true;
		this.#socket.cork();
		setImmediate(() => {
			this.#isScheduled = false;
			for (const [key, connection] of this.#connections) {
				connection.acknowledge();
				if (connection.isOver) this.#connections.delete(key);
			}
			this.#socket.uncork();
		});
	}

	#answerArp(payload: Uint8Array): void {
		const packet = arp.parseArpPacket(payload);
		if (!packet.ok || packet.value.operation !== "request") return;
		const { senderAddress, senderMac, targetAddress } = packet.value;
		const reply = arp.serializeArpPacket({
			operation: "reply",
			senderMac: GATEWAY_MAC,
			senderAddress: targetAddress,
			targetMac: senderMac,
			targetAddress: senderAddress,
		});
		this.#webSocket.send(
			ethernet.serializeEthernetFrame({
				destination: senderMac,
				source: GATEWAY_MAC,
				etherType: ethernet.ETHERTYPE_ARP,
				payload: reply,
			}),
		);
	}

	#receivePacket(bytes: Uint8Array, guestMac: number): void {
		const packet = ipv4.parseIpv4Packet(bytes);
		if (!packet.ok || packet.value.protocol !== ipv4.PROTOCOL_TCP) return;
		const { source, destination, payload } = packet.value;
		const parsed = tcp.parseTcpSegment(payload, source, destination);
		if (!parsed.ok) return;
		const segment = parsed.value;
		const key = `${segment.sourcePort} ${destination} ${segment.destinationPort}`;
		if ((segment.flags & tcp.TCP_RST) !== 0) {
			this.#connections.delete(key);
		} else if ((segment.flags & tcp.TCP_SYN) !== 0) {
			const addresses = { guest: source, remote: destination, guestMac };
			this.#connections.set(
				key,
				new NullConnection(segment, this.#content, (answer) => this.#sendSegment(answer, addresses)),
			);
		} else {
			this.#connections.get(key)?.receive(segment);
		}
	}

	#sendSegment(segment: TcpSegment, { guest, remote, guestMac }: Addresses): void {
		this.#identification = (this.#identification + 1) & 0xffff;
		this.#webSocket.send(
			tcp.serializeTcpFrame({
				segment,
				source: remote,
				destination: guest,
				sourceMac: GATEWAY_MAC,
				destinationMac: guestMac,
				identification: this.#identification,
			}),
		);
	}
}

/** Emits "swallowed" with the number of bytes. */
export class NullRelay extends EventEmitter<{ swallowed: [bytes: number] }> {
	readonly #server: Server;

	private constructor(server: Server) {
		super();
		this.#server = server;
	}

	/** `contentBytes`: of each answer to a GET. */
	static async start(contentBytes: number, mtu: number): Promise<NullRelay> {
		const server = createServer();
		const relay = new NullRelay(server);
		const webSockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
		const content: Content = {
			bytes: contentBytes,
			maximumSegmentSize: mtu - HEADER_BYTES,
			swallowed: (bytes) => relay.emit("swallowed", bytes),
		};
		server.on("upgrade", (request, socket, head) => {
			(socket as Socket).setNoDelay(true);
			webSockets.handleUpgrade(request, socket, head, (webSocket) => {
				new NullNetwork(socket as Socket, webSocket, content);
			});
		});
		server.listen(0, "127.0.0.1");
		await once(server, "listening");
		return relay;
	}

	get url(): string {
		return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
	}

	close(): void {
		this.#server.close();
		this.#server.closeAllConnections();
	}
}
