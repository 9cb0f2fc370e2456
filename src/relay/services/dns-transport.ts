import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";
import { type Clock, systemClock } from "../clock.js";
import { readUint16, writeUint16 } from "../wire/bytes.js";
import type { Resolver } from "./resolver.js";

/** One question to one resolver. */
export interface DnsExchange {
	/** A whole message, without the length that TCP puts before it. */
	readonly query: Uint8Array;
	readonly resolver: Resolver;
	readonly via: "udp" | "tcp";
	readonly timeoutMs: number;
	readonly signal: AbortSignal;
	/** Whether a message that came back from there is the answer; others are passed over. */
	readonly accepts: (message: Uint8Array) => boolean;
}

export interface DnsTransport {
	/** The answer. Rejects if none came in time, if the resolver can't be reached or if the signal was given. */
	exchange(exchange: DnsExchange): Promise<Uint8Array>;
}

/** RFC 1035 4.2.2. */
const PREFIX_BYTES = 2;
const FIRST_FREE_PORT = 1024;
const PORTS = 65_536;

/** Sockets of the host's own, one for each exchange: a source port at random makes answers hard to forge (RFC 5452). */
export function nodeDnsTransport(clock: Clock = systemClock): DnsTransport {
	return {
		exchange(exchange) {
			return new Promise((resolve, reject) => {
				const open = exchange.via === "udp" ? openUdp : openTcp;
				let close = (): void => {};
				const settle = (done: () => void): void => {
					timer.cancel();
					exchange.signal.removeEventListener("abort", abort);
					close();
					done();
				};
				const fail = (error: Error): void => settle(() => reject(error));
				const abort = (): void => fail(new Error("given up"));
				const timer = clock.setTimer(exchange.timeoutMs, () => fail(new Error("no answer in time")));
				exchange.signal.addEventListener("abort", abort);
				const receive = (message: Uint8Array): void => {
					if (exchange.accepts(message)) settle(() => resolve(message));
				};
				if (exchange.signal.aborted) abort();
				else close = open(exchange, receive, fail);
			});
		},
	};
}

type Open = (exchange: DnsExchange, receive: (message: Uint8Array) => void, fail: (error: Error) => void) => () => void;

/** The address is a literal; dgram would ask for it all the same. */
function literal(
	address: string,
	_options: unknown,
	callback: (error: Error | null, address: string, family: number) => void,
): void {
	callback(null, address, isIPv6(address) ? 6 : 4);
}

const openUdp: Open = ({ query, resolver }, receive, fail) => {
	const socket = createSocket({ type: isIPv6(resolver.address) ? "udp6" : "udp4", lookup: literal });
	let isOpen = true;
	// Connected: the system passes on what comes from the resolver's address and port only.
	const start = (): void => {
		socket.connect(resolver.port, resolver.address, () => {
			if (isOpen) socket.send(query);
		});
	};
	let isBound = false;
	socket.on("error", (error) => {
		if (isBound) {
			fail(error);
			return;
		}
		// Taken or reserved: then one of the system's choice.
		isBound = true;
		socket.bind(0, start);
	});
	socket.on("message", (message) => receive(message));
	socket.once("listening", () => {
		isBound = true;
	});
	socket.bind(randomInt(FIRST_FREE_PORT, PORTS), start);
	return () => {
		isOpen = false;
		socket.removeAllListeners();
		socket.on("error", () => {});
		socket.close();
	};
};

const openTcp: Open = ({ query, resolver }, receive, fail) => {
	const socket = connect({ host: resolver.address, port: resolver.port, noDelay: true, autoSelectFamily: false });
	const framed = new Uint8Array(PREFIX_BYTES + query.length);
	writeUint16(framed, 0, query.length);
	framed.set(query, PREFIX_BYTES);
	socket.write(framed);
	let received: Uint8Array = new Uint8Array(0);
	socket.on("data", (bytes: Buffer) => {
		received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
		while (received.length >= PREFIX_BYTES) {
			const end = PREFIX_BYTES + readUint16(received, 0);
			if (received.length < end) return;
			const message = received.subarray(PREFIX_BYTES, end);
			received = received.subarray(end);
			receive(message);
		}
	});
	socket.on("error", fail);
	socket.on("end", () => fail(new Error("connection closed without an answer")));
	return () => {
		socket.removeAllListeners();
		socket.on("error", () => {});
		socket.destroy();
	};
};
