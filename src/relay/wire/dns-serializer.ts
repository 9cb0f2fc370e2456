import { writeUint16, writeUint32 } from "./bytes.js";
import {
	DNS_COUNTS_OFFSET,
	DNS_FLAGS_OFFSET,
	DNS_HEADER_BYTES,
	DNS_MAX_BYTES,
	DNS_TYPE,
	type DnsData,
	type DnsMessage,
	type DnsQuestion,
	type DnsRecord,
} from "./dns.js";
import { dnsNameLabels } from "./dns-name.js";

/** OPT (RFC 6891 6.1.2): a root name, type, class = UDP size, ttl = extended code(1) version(1) flags(2), length. */
const OPT_BYTES = 11;
/** A pointer reaches as far (14 bits). */
const MAX_POINTER = 0x3fff;
const ROOT = Uint8Array.of(0);

/**
 * Writes a message of at most `maxBytes`; records that don't fit are left out and the message is marked as truncated.
 * Names that came from parseDnsMessage can be written.
 */
export function serializeDnsMessage(message: DnsMessage, maxBytes = DNS_MAX_BYTES): Uint8Array {
	const optBytes = message.edns === undefined ? 0 : OPT_BYTES;
	const writer = new DnsWriter(maxBytes - optBytes, maxBytes);
	for (const question of message.questions) writer.question(question);
	const answers = writer.records(message.answers);
	const authorities = answers === message.answers.length ? writer.records(message.authorities) : 0;
	const isCut = answers + authorities < message.answers.length + message.authorities.length;
	if (message.edns !== undefined) writer.opt(message.edns.udpBytes, message.edns.version, message.code >>> 4);
	return writer.finish({ ...message, isTruncated: message.isTruncated || isCut }, [
		message.questions.length,
		answers,
		authorities,
		message.edns === undefined ? 0 : 1,
	]);
}

/** Writes up to a limit; behind it nothing is written, and `#isFull` says so. */
class DnsWriter {
	readonly #bytes: Uint8Array;
	readonly #limit: number;
	/** Where the names stand that were written so far, by their text. */
	readonly #names = new Map<string, number>();
	#at = DNS_HEADER_BYTES;
	#isFull = false;

	/** Sections end at `limit`; OPT may use the rest up to `maxBytes`. */
	constructor(limit: number, maxBytes: number) {
		this.#limit = limit;
		this.#bytes = new Uint8Array(maxBytes);
	}

	question({ name, type, class: questionClass }: DnsQuestion): void {
		this.#name(name);
		this.#uint16(type);
		this.#uint16(questionClass);
	}

	/** Returns how many have found room. */
	records(records: readonly DnsRecord[]): number {
		let count = 0;
		for (const record of records) {
			const start = this.#at;
			this.#record(record);
			if (this.#isFull) {
				this.#at = start;
				break;
			}
			count += 1;
		}
		return count;
	}

	opt(udpBytes: number, version: number, extendedCode: number): void {
		this.#bytes[this.#at] = 0;
		writeUint16(this.#bytes, this.#at + 1, DNS_TYPE.OPT);
		writeUint16(this.#bytes, this.#at + 3, udpBytes);
		writeUint32(this.#bytes, this.#at + 5, ((extendedCode << 24) | (version << 16)) >>> 0);
		writeUint16(this.#bytes, this.#at + 9, 0);
		this.#at += OPT_BYTES;
	}

	finish(message: DnsMessage, counts: readonly number[]): Uint8Array {
		const flags =
			(message.isResponse ? 0x8000 : 0) |
			((message.opcode & 0xf) << 11) |
			(message.isAuthoritative ? 0x0400 : 0) |
			(message.isTruncated ? 0x0200 : 0) |
			(message.recursionDesired ? 0x0100 : 0) |
			(message.recursionAvailable ? 0x0080 : 0) |
			(message.code & 0xf);
		writeUint16(this.#bytes, 0, message.id);
		writeUint16(this.#bytes, DNS_FLAGS_OFFSET, flags);
		counts.forEach((count, index) => {
			writeUint16(this.#bytes, DNS_COUNTS_OFFSET + 2 * index, count);
		});
		return this.#bytes.slice(0, this.#at);
	}

	#record(record: DnsRecord): void {
		this.#name(record.name);
		this.#uint16(record.type);
		this.#uint16(record.class);
		this.#uint32(record.timeToLive);
		const lengthAt = this.#at;
		this.#uint16(0);
		this.#data(record.data);
		if (!this.#isFull) writeUint16(this.#bytes, lengthAt, this.#at - lengthAt - 2);
	}

	#data(data: DnsData): void {
		switch (data.kind) {
			case "address":
				this.#uint32(data.address);
				break;
			case "name":
				this.#name(data.name);
				break;
			case "mx":
				this.#uint16(data.preference);
				this.#name(data.exchange);
				break;
			case "srv":
				this.#uint16(data.priority);
				this.#uint16(data.weight);
				this.#uint16(data.port);
				// RFC 2782: not compressed.
				this.#name(data.target, false);
				break;
			case "soa":
				this.#name(data.server);
				this.#name(data.mailbox);
				for (const number of data.numbers) this.#uint32(number);
				break;
			case "bytes":
				this.#raw(data.bytes);
				break;
		}
	}

	#name(name: string, compressed = true): void {
		const labels = dnsNameLabels(name) ?? [];
		const texts = name.split(".");
		for (let index = 0; index < labels.length; index++) {
			const rest = texts.slice(index).join(".");
			const known = this.#names.get(rest);
			if (compressed && known !== undefined) {
				this.#uint16(0xc000 | known);
				return;
			}
			if (known === undefined && this.#at <= MAX_POINTER) this.#names.set(rest, this.#at);
			const label = labels[index] ?? new Uint8Array(0);
			this.#raw(Uint8Array.of(label.length));
			this.#raw(label);
		}
		this.#raw(ROOT);
	}

	#uint16(value: number): void {
		if (this.#reserve(2)) writeUint16(this.#bytes, this.#at - 2, value);
	}

	#uint32(value: number): void {
		if (this.#reserve(4)) writeUint32(this.#bytes, this.#at - 4, value);
	}

	#raw(bytes: Uint8Array): void {
		if (this.#reserve(bytes.length)) this.#bytes.set(bytes, this.#at - bytes.length);
	}

	#reserve(count: number): boolean {
		if (this.#at + count > this.#limit) this.#isFull = true;
		else this.#at += count;
		return !this.#isFull;
	}
}
