import { type FileHandle, mkdir, open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { describeError } from "../errors.js";
import type { Log } from "../log.js";
import type { Ipv4 } from "./addresses.js";
import { AUDIT_KEPT_FILES, AUDIT_MAX_FILE_BYTES, AUDIT_MAX_WAITING_LINES } from "./limits.js";
import { formatIpv4Address } from "./wire/address.js";

/** One decision, and what came of it. */
export interface AuditEntry {
	readonly machine: string;
	readonly protocol: "tcp" | "udp" | "icmp" | "dns";
	/** By which the machine knows the address, or which it asked for. */
	readonly name: string | undefined;
	readonly address: Ipv4 | undefined;
	readonly port: number | undefined;
	readonly verdict: "allowed" | "refused";
	/** What decided. */
	readonly rule: string;
	/** From the guest. */
	readonly bytesOut: number;
	/** To the guest. */
	readonly bytesIn: number;
}

export interface AuditLog {
	/** Appends a line; returns at once. */
	write(entry: AuditEntry): void;
	/** Once every line is with the system. */
	close(): Promise<void>;
	/** Entries that could not be kept. */
	readonly lost: number;
}

export const silentAuditLog: AuditLog = { write() {}, close: () => Promise.resolve(), lost: 0 };

export interface AuditLogOptions {
	readonly now?: () => Date;
	readonly maxFileBytes?: number;
	readonly maxWaitingLines?: number;
}

/**
 * JSON lines, appended in order to a file that only the user may read. When it is full it becomes PATH.1, PATH.1 becomes
 * PATH.2 and so on. A disk that is slow or full loses entries, never the network: the loss is reported.
 */
export function openAuditLog(path: string, log: Log, options: AuditLogOptions = {}): AuditLog {
	return new FileAuditLog(path, log, options);
}

/** A line of the file. */
export function formatAuditLine(time: Date, entry: AuditEntry): string {
	const { machine, protocol, name, address, port, verdict, rule, bytesOut, bytesIn } = entry;
	return `${JSON.stringify({
		time: time.toISOString(),
		machine,
		protocol,
		name: name ?? null,
		address: address === undefined ? null : formatIpv4Address(address),
		port: port ?? null,
		verdict,
		rule,
		bytesOut,
		bytesIn,
	})}\n`;
}

class FileAuditLog implements AuditLog {
	readonly #path: string;
	readonly #log: Log;
	readonly #now: () => Date;
	readonly #maxFileBytes: number;
	readonly #maxWaitingLines: number;
	#waiting: string[] = [];
	#writing: Promise<void> | undefined;
	#file: { readonly handle: FileHandle; bytes: number } | undefined;
	#closed = false;
	#hasReported = false;
	#lost = 0;

	constructor(path: string, log: Log, options: AuditLogOptions) {
		this.#path = path;
		this.#log = log;
		this.#now = options.now ?? (() => new Date());
		this.#maxFileBytes = options.maxFileBytes ?? AUDIT_MAX_FILE_BYTES;
		this.#maxWaitingLines = options.maxWaitingLines ?? AUDIT_MAX_WAITING_LINES;
	}

	get lost(): number {
		return this.#lost;
	}

	write(entry: AuditEntry): void {
		if (this.#closed || this.#waiting.length >= this.#maxWaitingLines) {
			this.#lose(1, "the disk is too slow");
			return;
		}
		this.#waiting.push(formatAuditLine(this.#now(), entry));
		this.#writing ??= this.#drain();
	}

	async close(): Promise<void> {
		this.#closed = true;
		await this.#writing;
		await this.#file?.handle.close();
		this.#file = undefined;
	}

	async #drain(): Promise<void> {
		// What comes in the same turn goes out together.
		await Promise.resolve();
		while (this.#waiting.length > 0) {
			const lines = this.#waiting;
			this.#waiting = [];
			try {
				await this.#append(Buffer.from(lines.join("")));
			} catch (error) {
				this.#lose(lines.length, describeError(error));
			}
		}
		this.#writing = undefined;
	}

	async #append(bytes: Uint8Array): Promise<void> {
		if (this.#file !== undefined && this.#file.bytes + bytes.length > this.#maxFileBytes) await this.#rotate();
		this.#file ??= await this.#open();
		this.#file.bytes += bytes.length;
		await this.#file.handle.appendFile(bytes);
	}

	async #open(): Promise<{ handle: FileHandle; bytes: number }> {
		await mkdir(dirname(this.#path), { recursive: true });
		const handle = await open(this.#path, "a", 0o600);
		return { handle, bytes: (await handle.stat()).size };
	}

	async #rotate(): Promise<void> {
		await this.#file?.handle.close();
		this.#file = undefined;
		for (let age = AUDIT_KEPT_FILES; age >= 1; age--) {
			const younger = age === 1 ? this.#path : `${this.#path}.${age - 1}`;
			await rename(younger, `${this.#path}.${age}`).catch(ignoreMissing);
		}
	}

	#lose(count: number, reason: string): void {
		this.#lost += count;
		if (this.#hasReported) return;
		this.#hasReported = true;
		this.#log.warn(`audit log ${this.#path} loses entries: ${reason}`);
	}
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
	if (error.code !== "ENOENT") throw error;
}
