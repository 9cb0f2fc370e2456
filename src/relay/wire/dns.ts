import type { Parsed } from "../../parsed.js";
import type { Ipv4 } from "../addresses.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";
import { dnsNameLabels, readDnsName } from "./dns-name.js";

// RFC 1035 4.1: id(2) flags(2) questions(2) answers(2) authorities(2) additionals(2), then the four sections
const HEADER_BYTES = 12;
const FLAGS_OFFSET = 2;
const QUESTIONS_OFFSET = 4;
const ANSWERS_OFFSET = 6;
const AUTHORITIES_OFFSET = 8;
const ADDITIONALS_OFFSET = 10;
/** Behind a record's name: type(2) class(2) ttl(4) length(2). */
const RECORD_BYTES = 10;
/** OPT (RFC 6891 6.1.2): a root name, type, class = UDP size, ttl = extended code(1) version(1) flags(2), length. */
const OPT_BYTES = 11;
/** A pointer reaches as far (14 bits). */
const MAX_POINTER = 0x3fff;
export const DNS_MAX_BYTES = 65_535;

export const DNS_CLASS_IN = 1;
/** RFC 1035 3.2.2, 3596, 2782, 6891, 8659, 9460. */
export const DNS_TYPE = {
	A: 1,
	NS: 2,
	CNAME: 5,
	SOA: 6,
	PTR: 12,
	HINFO: 13,
	MX: 15,
	TXT: 16,
	AAAA: 28,
	SRV: 33,
	OPT: 41,
	SVCB: 64,
	HTTPS: 65,
	ANY: 255,
	CAA: 257,
} as const;
/** RFC 1035 4.1.1, 6891 9. */
export const DNS_CODE = {
	NOERROR: 0,
	FORMERR: 1,
	SERVFAIL: 2,
	NXDOMAIN: 3,
	NOTIMP: 4,
	REFUSED: 5,
	BADVERS: 16,
} as const;

export interface DnsQuestion {
	readonly name: string;
	readonly type: number;
	readonly class: number;
}

export type DnsData =
	| { readonly kind: "address"; readonly address: Ipv4 }
	/** CNAME, NS, PTR */
	| { readonly kind: "name"; readonly name: string }
	| { readonly kind: "mx"; readonly preference: number; readonly exchange: string }
	| {
			readonly kind: "srv";
			readonly priority: number;
			readonly weight: number;
			readonly port: number;
			readonly target: string;
	  }
	| { readonly kind: "soa"; readonly server: string; readonly mailbox: string; readonly numbers: readonly number[] }
	| { readonly kind: "bytes"; readonly bytes: Uint8Array };

export interface DnsRecord {
	readonly name: string;
	readonly type: number;
	readonly class: number;
	/** Seconds; with the top bit set it counts as 0 (RFC 2181 8). */
	readonly timeToLive: number;
	readonly data: DnsData;
}

export interface DnsMessage {
	readonly id: number;
	readonly isResponse: boolean;
	readonly opcode: number;
	readonly isAuthoritative: boolean;
	readonly isTruncated: boolean;
	readonly recursionDesired: boolean;
	readonly recursionAvailable: boolean;
	/** With the upper bits of OPT. */
	readonly code: number;
	readonly questions: readonly DnsQuestion[];
	readonly answers: readonly DnsRecord[];
	readonly authorities: readonly DnsRecord[];
	/** From the additional section, of which nothing else is kept. */
	readonly edns: { readonly udpBytes: number; readonly version: number } | undefined;
}

/** SOA: serial, refresh, retry, expire, minimum. */
const SOA_NUMBERS = 5;

/** What stands in the first twelve bytes; undefined if there are fewer. */
export function parseDnsHeader(bytes: Uint8Array): DnsMessage | undefined {
	if (bytes.length < HEADER_BYTES) return undefined;
	const flags = readUint16(bytes, FLAGS_OFFSET);
	return {
		id: readUint16(bytes, 0),
		isResponse: (flags & 0x8000) !== 0,
		opcode: (flags >> 11) & 0xf,
		isAuthoritative: (flags & 0x0400) !== 0,
		isTruncated: (flags & 0x0200) !== 0,
		recursionDesired: (flags & 0x0100) !== 0,
		recursionAvailable: (flags & 0x0080) !== 0,
		code: flags & 0xf,
		questions: [],
		answers: [],
		authorities: [],
		edns: undefined,
	};
}

/** Reads a whole message. Bytes behind it are ignored. */
export function parseDnsMessage(bytes: Uint8Array): Parsed<DnsMessage> {
	const header = parseDnsHeader(bytes);
	if (header === undefined) return { ok: false, reason: "short header" };
	const cursor = { bytes, at: HEADER_BYTES };
	const questions = readQuestions(cursor, readUint16(bytes, QUESTIONS_OFFSET));
	if (questions === undefined) return { ok: false, reason: "bad question" };
	const answers = readRecords(cursor, readUint16(bytes, ANSWERS_OFFSET));
	if (answers === undefined) return { ok: false, reason: "bad answer" };
	const authorities = readRecords(cursor, readUint16(bytes, AUTHORITIES_OFFSET));
	if (authorities === undefined) return { ok: false, reason: "bad authority" };
	const additionals = readRecords(cursor, readUint16(bytes, ADDITIONALS_OFFSET));
	if (additionals === undefined) return { ok: false, reason: "bad additional record" };
	const options = additionals.filter((record) => record.type === DNS_TYPE.OPT);
	// RFC 6891 6.1.1: more than one is a format error.
	if (options.length > 1) return { ok: false, reason: "two OPT records" };
	const [option] = options;
	const extended = option === undefined ? 0 : option.timeToLive >>> 24;
	const edns =
		option === undefined ? undefined : { udpBytes: option.class, version: (option.timeToLive >>> 16) & 0xff };
	return {
		ok: true,
		value: { ...header, code: (extended << 4) | header.code, questions, answers, authorities, edns },
	};
}

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

interface Cursor {
	readonly bytes: Uint8Array;
	at: number;
}

function readName(cursor: Cursor): string | undefined {
	const read = readDnsName(cursor.bytes, cursor.at);
	if (read === undefined) return undefined;
	cursor.at = read.end;
	return read.name;
}

function readQuestions(cursor: Cursor, count: number): DnsQuestion[] | undefined {
	const questions: DnsQuestion[] = [];
	for (let index = 0; index < count; index++) {
		const name = readName(cursor);
		if (name === undefined || cursor.at + 4 > cursor.bytes.length) return undefined;
		const type = readUint16(cursor.bytes, cursor.at);
		questions.push({ name, type, class: readUint16(cursor.bytes, cursor.at + 2) });
		cursor.at += 4;
	}
	return questions;
}

function readRecords(cursor: Cursor, count: number): DnsRecord[] | undefined {
	const records: DnsRecord[] = [];
	for (let index = 0; index < count; index++) {
		const record = readRecord(cursor);
		if (record === undefined) return undefined;
		records.push(record);
	}
	return records;
}

function readRecord(cursor: Cursor): DnsRecord | undefined {
	const { bytes } = cursor;
	const name = readName(cursor);
	const start = cursor.at + RECORD_BYTES;
	if (name === undefined || start > bytes.length) return undefined;
	const type = readUint16(bytes, cursor.at);
	const recordClass = readUint16(bytes, cursor.at + 2);
	const timeToLive = readUint32(bytes, cursor.at + 4);
	const end = start + readUint16(bytes, cursor.at + 8);
	if (end > bytes.length) return undefined;
	const data = readData(type, recordClass, { bytes: bytes.subarray(0, end), at: start });
	if (data === undefined) return undefined;
	cursor.at = end;
	return { name, type, class: recordClass, timeToLive, data };
}

/** The cursor's bytes end with the data. */
function readData(type: number, recordClass: number, cursor: Cursor): DnsData | undefined {
	const { bytes, at } = cursor;
	if (recordClass !== DNS_CLASS_IN) return { kind: "bytes", bytes: bytes.subarray(at) };
	switch (type) {
		case DNS_TYPE.A:
			return bytes.length - at === 4 ? { kind: "address", address: readUint32(bytes, at) } : undefined;
		case DNS_TYPE.CNAME:
		case DNS_TYPE.NS:
		case DNS_TYPE.PTR: {
			const name = readLastName(cursor);
			return name === undefined ? undefined : { kind: "name", name };
		}
		case DNS_TYPE.MX: {
			cursor.at += 2;
			const exchange = readLastName(cursor);
			return exchange === undefined ? undefined : { kind: "mx", preference: readUint16(bytes, at), exchange };
		}
		case DNS_TYPE.SRV: {
			cursor.at += 6;
			const target = readLastName(cursor);
			if (target === undefined) return undefined;
			const [priority, weight, port] = [readUint16(bytes, at), readUint16(bytes, at + 2), readUint16(bytes, at + 4)];
			return { kind: "srv", priority, weight, port, target };
		}
		case DNS_TYPE.SOA:
			return readAuthority(cursor);
		default:
			return { kind: "bytes", bytes: bytes.subarray(at) };
	}
}

function readAuthority(cursor: Cursor): DnsData | undefined {
	const server = readName(cursor);
	const mailbox = server === undefined ? undefined : readName(cursor);
	if (server === undefined || mailbox === undefined) return undefined;
	if (cursor.at + 4 * SOA_NUMBERS !== cursor.bytes.length) return undefined;
	const numbers = Array.from({ length: SOA_NUMBERS }, (_, index) => readUint32(cursor.bytes, cursor.at + 4 * index));
	return { kind: "soa", server, mailbox, numbers };
}

/** A name that ends where the data ends. */
function readLastName(cursor: Cursor): string | undefined {
	const name = readName(cursor);
	return cursor.at === cursor.bytes.length ? name : undefined;
}

/** Writes up to a limit; behind it nothing is written, and `#isFull` says so. */
class DnsWriter {
	readonly #bytes: Uint8Array;
	readonly #limit: number;
	/** Where the names stand that were written so far, by their text. */
	readonly #names = new Map<string, number>();
	#at = HEADER_BYTES;
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
		writeUint16(this.#bytes, FLAGS_OFFSET, flags);
		counts.forEach((count, index) => {
			writeUint16(this.#bytes, QUESTIONS_OFFSET + 2 * index, count);
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

const ROOT = Uint8Array.of(0);
