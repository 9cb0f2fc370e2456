/** stdout belongs to the protocol: whatever else the process prints goes to stderr. */

import { Writable } from "node:stream";

/**
 * Takes stdout for the returned stream alone. From then on console.log, and any library that writes to
 * process.stdout, ends on stderr. A client that has closed its end makes the stream fail, not the process.
 */
export function claimStdout(): Writable {
	const write = process.stdout.write.bind(process.stdout);
	process.stdout.on("error", () => {});
	process.stdout.write = process.stderr.write.bind(process.stderr) as typeof process.stdout.write;
	return new Writable({
		decodeStrings: false,
		write(chunk: string | Uint8Array, _encoding, done) {
			write(chunk, (error) => done(error));
		},
	});
}
