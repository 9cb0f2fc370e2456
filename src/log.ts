/** One line of stderr per event. stdout is never written: it belongs to the protocol. */

export type LogLevel = "error" | "warn" | "info" | "debug";

export interface Log {
	error(message: string): void;
	warn(message: string): void;
	info(message: string): void;
	debug(message: string): void;
}

const ORDER: Record<LogLevel, number> = { error: 0, warn: 1, info: 2, debug: 3 };

/** A log that writes lines of at most `level` to `write` (stderr by default). Control characters are escaped. */
export function createLog(level: LogLevel, write: (line: string) => void = writeStderr): Log {
	const emit = (at: LogLevel, message: string) => {
		if (ORDER[at] > ORDER[level]) return;
		write(`sandbox86 ${at}: ${escapeControls(message)}\n`);
	};
	return {
		error: (message) => emit("error", message),
		warn: (message) => emit("warn", message),
		info: (message) => emit("info", message),
		debug: (message) => emit("debug", message),
	};
}

export const silentLog: Log = { error() {}, warn() {}, info() {}, debug() {} };

function writeStderr(line: string): void {
	process.stderr.write(line);
}

/** Guest text may hold terminal escapes; a log line shows them instead of obeying them. */
export function escapeControls(text: string): string {
	// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is replaced
	return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) =>
		c === "\n" ? "\\n" : `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`,
	);
}
