import type { Ipv4 } from "../addresses.js";
import type { PingOutcome } from "../egress/ping.js";
import { MAX_PINGS } from "../limits.js";
import { isOwnAddress, type NetworkContext } from "../network-context.js";
import {
	destinationUnreachable,
	ICMP_ADMINISTRATIVELY_PROHIBITED,
	ICMP_ECHO_REPLY,
	ICMP_ECHO_REQUEST,
	ICMP_HOST_UNREACHABLE,
	type IcmpMessage,
	parseIcmpMessage,
	serializeIcmpMessage,
} from "../wire/icmp.js";
import type { Ipv4Packet } from "../wire/ipv4.js";

/** ICMP of the guest (RFC 792): echo requests to the gateway are answered here, others by the host's own ping. */
export class IcmpService {
	readonly #context: NetworkContext;
	#pings = 0;
	/** Replies to requests of a past that was abandoned are not passed on. */
	#era = 0;

	constructor(context: NetworkContext) {
		this.#context = context;
	}

	receive(packet: Ipv4Packet): void {
		const { counters } = this.#context;
		const message = parseIcmpMessage(packet.payload);
		if (!message.ok) counters.badIcmp += 1;
		else if (message.value.type !== ICMP_ECHO_REQUEST) counters.unansweredIcmp += 1;
		else if (isOwnAddress(packet.destination)) this.#reply(packet.destination, message.value);
		else this.#ping(packet, message.value);
	}

	/** Forgets what it waits for. */
	abandon(): void {
		this.#era += 1;
	}

	#reply(source: Ipv4, { rest, payload }: IcmpMessage): void {
		const reply = { type: ICMP_ECHO_REPLY, code: 0, rest, payload };
		this.#context.wire.sendIcmp(source, serializeIcmpMessage(reply));
	}

	#ping(packet: Ipv4Packet, request: IcmpMessage): void {
		const { counters, gate, wire } = this.#context;
		if (this.#pings >= MAX_PINGS) {
			counters.pingLimit += 1;
			return;
		}
		const opening = gate.ping(packet.destination);
		if (!("outcome" in opening)) {
			counters.deniedIcmp += 1;
			this.#context.recordRefused("icmp", packet.destination, 0, opening.verdict);
			wire.sendIcmpError(destinationUnreachable(packet, ICMP_ADMINISTRATIVELY_PROHIBITED));
			return;
		}
		this.#pings += 1;
		const era = this.#era;
		const original = { ...packet, header: packet.header.slice(), payload: packet.payload.slice() };
		const kept = { ...request, payload: request.payload.slice() };
		const { name, rule } = opening.verdict;
		const settle = ({ kind }: PingOutcome): void => {
			this.#pings -= 1;
			this.#context.record({
				protocol: "icmp",
				name,
				address: packet.destination,
				port: undefined,
				verdict: "allowed",
				rule,
				bytesOut: kept.payload.length,
				bytesIn: kind === "reply" ? kept.payload.length : 0,
			});
			if (era !== this.#era) return;
			if (kind === "reply") this.#reply(packet.destination, kept);
			else if (kind === "unavailable") wire.sendIcmpError(destinationUnreachable(original, ICMP_HOST_UNREACHABLE));
		};
		opening.outcome.then(settle, () => settle({ kind: "unavailable" }));
	}
}
