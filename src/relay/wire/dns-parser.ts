import type { Parsed } from "../../parsed.js";
import { readUint16, readUint32 } from "./bytes.js";
import {
	DNS_CLASS_IN,
	DNS_COUNTS_OFFSET,
	DNS_FLAGS_OFFSET,
	DNS_HEADER_BYTES,
	DNS_TYPE,
	type DnsData,
	type DnsMessage,
	type DnsQuestion,
	type DnsRecord,
} from "./dns.js";
import { readDnsName } from "./dns-name.js";

/** Behind a record's name: type(2) class(2) ttl(4) length(2). */
const RECORD_BYTES = 10;
/** SOA: serial, refresh, retry, expire, minimum. */
const SOA_NUMBERS = 5;

/** What stands in the first twelve bytes; undefined if there are fewer. */
export function parseDnsHeader(bytes: Uint8Array): DnsMessage | undefined {
	if (bytes.length < DNS_HEADER_BYTES) return undefined;
	const flags = readUint16(bytes, DNS_FLAGS_OFFSET);
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
	const cursor = { bytes, at: DNS_HEADER_BYTES };
	const questions = readQuestions(cursor, readUint16(bytes, DNS_COUNTS_OFFSET));
	if (questions === undefined) return { ok: false, reason: "bad question" };
	const answers = readRecords(cursor, readUint16(bytes, DNS_COUNTS_OFFSET + 2));
	if (answers === undefined) return { ok: false, reason: "bad answer" };
	const authorities = readRecords(cursor, readUint16(bytes, DNS_COUNTS_OFFSET + 4));
	if (authorities === undefined) return { ok: false, reason: "bad authority" };
	const additionals = readRecords(cursor, readUint16(bytes, DNS_COUNTS_OFFSET + 6));
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
