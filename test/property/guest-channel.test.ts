import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestFrame, HEADER_BYTES, HostFrame, serializeFrame } from "../../src/vm/channel/frame.js";
import { GuestCallError, GuestChannel, PIECE_BYTES } from "../../src/vm/channel/guest-channel.js";
import { Op, serializeWrite } from "../../src/vm/channel/messages.js";

const CLOCK = { wallClockMicros: 1n, seed: new Uint8Array(32) };

/** The guest's end by the letter of docs/guest-channel.md: reads pieces when told to, and answers WRITE with its content's size. */
class ModelGuest {
	readonly channel: GuestChannel;
	readonly unread: Uint8Array[] = [];
	readonly written = new Map<number, number[]>();
	mostUnread = 0;
	violations: string[] = [];
	boots = 0;
	consumed = 0;
	/** Otherwise it leaves the count to the next frame that it has to say. */
	tellsAtOnce = true;
	#stream = new Uint8Array(0);

	constructor(windowPieces: number) {
		this.channel = new GuestChannel({
			windowPieces,
			sendInput: (bytes) => {
				for (let at = 0; at < bytes.length; at += PIECE_BYTES) this.unread.push(bytes.slice(at, at + PIECE_BYTES));
				this.mostUnread = Math.max(this.mostUnread, this.unread.length);
			},
			onBusy: () => {},
			onBoot: () => this.boots++,
			onViolation: (reason) => this.violations.push(reason),
		});
	}

	say(type: number, call: number, payload: Uint8Array): void {
		this.channel.receive(serializeFrame(type, call, payload, this.consumed));
	}

	/** Reads up to `count` pieces and tells so. */
	read(count: number): void {
		for (const piece of this.unread.splice(0, count)) {
			this.consumed++;
			this.#stream = Buffer.concat([this.#stream, piece]);
		}
		this.#parse();
		if (this.tellsAtOnce) this.say(GuestFrame.consumed, 0, new Uint8Array(0));
	}

	#parse(): void {
		while (this.#stream.length >= HEADER_BYTES) {
			const view = new DataView(this.#stream.buffer, this.#stream.byteOffset);
			const end = HEADER_BYTES + view.getUint32(8, true);
			if (this.#stream.length < end) return;
			const payload = this.#stream.subarray(HEADER_BYTES, end);
			this.#take(view.getUint8(0), view.getUint32(4, true), payload);
			this.#stream = this.#stream.subarray(end);
		}
	}

	#take(type: number, call: number, payload: Uint8Array): void {
		if (type === HostFrame.reset) {
			this.consumed = 1;
			this.say(GuestFrame.hello, call, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
		} else if (type === HostFrame.open) {
			expect(payload[0]).toBe(Op.write);
			this.written.set(call, []);
		} else if (type === HostFrame.data) {
			this.written.get(call)?.push(...payload);
		} else if (type === HostFrame.end) {
			this.say(GuestFrame.done, call, Uint8Array.from(this.written.get(call) ?? []).slice(0, 100));
		}
	}
}

async function connected(windowPieces: number): Promise<ModelGuest> {
	const guest = new ModelGuest(windowPieces);
	const hello = guest.channel.reset(CLOCK, new Error("started"));
	guest.read(1);
	await hello;
	return guest;
}

const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("guest channel", () => {
	it("delivers every call's bytes in order and never has more pieces unread than the window", async () => {
		await fc.assert(
			fc.asyncProperty(
				fc.integer({ min: 1, max: 6 }),
				fc.array(fc.uint8Array({ maxLength: 20_000 }), { minLength: 1, maxLength: 4 }),
				fc.infiniteStream(fc.integer({ min: 1, max: 4 })),
				async (windowPieces, contents, reads) => {
					const guest = await connected(windowPieces);
					const calls = contents.map((content) => {
						const call = guest.channel.open(serializeWrite(undefined, false, "/f"));
						void call.write(content).then(() => call.end());
						return call;
					});
					let over = false;
					void Promise.all(calls.map((call) => call.done)).then(() => (over = true));
					for (const count of reads) {
						await settle();
						if (over) break;
						guest.read(count);
					}
					expect([...guest.written.values()].map((bytes) => Uint8Array.from(bytes))).toEqual(contents);
					expect(guest.mostUnread).toBeLessThanOrEqual(windowPieces);
					expect(guest.violations).toEqual([]);
				},
			),
			{ numRuns: 60 },
		);
	});

	it("gives credit back for exactly the output that arrived", async () => {
		const guest = await connected(8);
		const chunk = new Uint8Array(16_384);
		for (let i = 0; i < 64; i++) guest.say(GuestFrame.out, 77, chunk);
		await settle();
		const credits = guest.unread.flatMap((piece) => {
			const view = new DataView(piece.buffer, piece.byteOffset);
			const found: number[] = [];
			for (let at = 0; at < piece.length; at += HEADER_BYTES + 4) {
				expect(view.getUint8(at)).toBe(HostFrame.credit);
				found.push(view.getUint32(at + HEADER_BYTES, true));
			}
			return found;
		});
		expect(credits.reduce((sum, credit) => sum + credit, 0)).toBe(64 * 16_384);
	});

	it("holds credit back while a handler is not done with the bytes", async () => {
		const guest = await connected(8);
		let finish = () => {};
		const call = guest.channel.open(serializeWrite(undefined, false, "/f"), {
			onOutput: () => new Promise<void>((resolve) => (finish = resolve)),
		});
		call.done.catch(() => {});
		await settle();
		guest.read(8);
		for (let i = 0; i < 16; i++) guest.say(GuestFrame.out, 1, new Uint8Array(16_384));
		await settle();
		expect(guest.unread).toEqual([]);
		finish();
		guest.say(GuestFrame.out, 99, new Uint8Array(16_384 * 0 + 16_384));
		await settle();
		expect(guest.unread).toEqual([]);
	});

	it("ignores frames of the epoch before until the guest has said hello", async () => {
		const guest = await connected(8);
		const call = guest.channel.open(serializeWrite(undefined, false, "/f"));
		const hello = guest.channel.reset(CLOCK, new Error("restored"));
		await expect(call.done).rejects.toThrow("restored");
		guest.say(GuestFrame.done, 1, new Uint8Array(0));
		guest.say(GuestFrame.hello, 1, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
		guest.read(1);
		await expect(hello).resolves.toMatchObject({ protocolVersion: 1 });
		expect(guest.violations).toEqual([]);
	});

	it("holds only when the guest has read everything, and sends nothing until released", async () => {
		const guest = await connected(4);
		const call = guest.channel.open(serializeWrite(undefined, false, "/f"));
		call.done.catch(() => {});
		await settle();
		let held = false;
		const holding = guest.channel.hold().then(() => (held = true));
		await settle();
		expect(held).toBe(false);
		guest.read(4);
		await holding;
		call.end();
		await settle();
		expect(guest.unread).toEqual([]);
		guest.channel.release();
		expect(guest.unread).toHaveLength(1);
	});

	it("takes the count of pieces from any frame of the guest", async () => {
		const guest = await connected(4);
		guest.tellsAtOnce = false;
		const call = guest.channel.open(serializeWrite(undefined, false, "/f"));
		call.done.catch(() => {});
		await settle();
		guest.read(4);
		let held = false;
		const holding = guest.channel.hold().then(() => (held = true));
		await settle();
		expect(held).toBe(false);
		guest.say(GuestFrame.out, 1, Uint8Array.of(1));
		await holding;
	});

	it("reports a guest that claims to have read what was never sent", async () => {
		const guest = await connected(4);
		guest.consumed = 1000;
		guest.say(GuestFrame.consumed, 0, new Uint8Array(0));
		expect(guest.violations).toEqual([expect.stringContaining("1000 pieces")]);
	});

	it("reports a guest that has read less than it said before, in any frame", async () => {
		const guest = await connected(4);
		guest.consumed = 0;
		guest.say(GuestFrame.busy, 0, new Uint8Array(4));
		expect(guest.violations).toEqual([expect.stringContaining("0 pieces")]);
	});

	it("tells a guest that started anew by itself from one that was asked to", async () => {
		const guest = await connected(4);
		guest.say(GuestFrame.hello, 0, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
		expect(guest.boots).toBe(1);
	});

	it("rejects every open call with the guest's own words, or with the cause of its death", async () => {
		const guest = await connected(4);
		const refused = guest.channel.open(serializeWrite(undefined, false, "/f"));
		const orphan = guest.channel.open(serializeWrite(undefined, false, "/g"));
		guest.say(GuestFrame.fail, 1, Uint8Array.of(21, 0, 0, 0, ...new TextEncoder().encode("is a directory")));
		await expect(refused.done).rejects.toEqual(new GuestCallError({ errno: 21, message: "is a directory" }));
		guest.channel.fail(new Error("it died"));
		await expect(orphan.done).rejects.toThrow("it died");
		await expect(guest.channel.open(serializeWrite(undefined, false, "/h")).done).rejects.toThrow("it died");
	});
});
