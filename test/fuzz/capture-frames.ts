import { readdirSync, readFileSync } from "node:fs";
import { GATEWAY_MAC } from "../../src/relay/addresses.js";

// Classic pcap, as the relay writes it: a header of 24 bytes, then records of 16 bytes and a frame.
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const LENGTH_OFFSET = 8;

/** What the guest sent in the captures of `folder` (*.pcap), in order. */
export function guestFrames(folder: string): Uint8Array[] {
	const frames: Uint8Array[] = [];
	for (const name of readdirSync(folder).sort()) {
		if (!name.endsWith(".pcap")) continue;
		const bytes = readFileSync(`${folder}/${name}`);
		for (let at = FILE_HEADER_BYTES; at + RECORD_HEADER_BYTES <= bytes.length; ) {
			const length = bytes.readUInt32LE(at + LENGTH_OFFSET);
			const frame = new Uint8Array(bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length));
			if (frame.length >= 14 && Buffer.from(frame.buffer).readUIntBE(6, 6) !== GATEWAY_MAC) frames.push(frame);
			at += RECORD_HEADER_BYTES + length;
		}
	}
	return frames;
}
