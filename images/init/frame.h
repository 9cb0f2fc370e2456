// The wire format of docs/guest-channel.md: type(1) zero(3) call(4) length(4) consumed(4) payload, little-endian like
// the machine. Header and payload are multiples of eight bytes: the kernel copies what is aligned alike several times faster.
#pragma once
#include <stdint.h>

enum {
	FRAME_HEADER = 16,
	FRAME_PAYLOAD_MAX = 16384,
	PIECE_MAX = 4096,
	PROTOCOL_VERSION = 3,
	CALLS_MAX = 8,
	COMMAND_MAX = 1 << 20,
	PATH_LENGTH_MAX = 4095,
};

enum host_frame { RESET = 0x01, OPEN, DATA, END, CANCEL, CREDIT, WAKE };
enum guest_frame { HELLO = 0x81, OUT, ERR, DONE, FAIL, CONSUMED, BUSY };
enum op { RUN = 1, READ, WRITE, COMPACT, POWEROFF, EXPORT };

enum run_flag {
	SHELL_ENDED = 1,      // the shell ended with this command
	SHELL_NEW = 2,        // the command ran in a new shell, because an earlier one had ended
	CANCELLED = 4,
	LIMIT_HIT = 8,        // the process limit was hit; what commands had left running was killed
	SHELL_REPLACED = 16,  // the shell could not be brought back after a cancel
};

struct frame_header {
	uint8_t type, zero[3];
	uint32_t call, length, consumed;
};

struct reset_payload {
	uint64_t wall_clock_us;
	uint32_t credit, zero;
	uint8_t seed[32];
} __attribute__((packed));

struct wake_payload {
	uint64_t wall_clock_us;
	uint8_t seed[32];
} __attribute__((packed));
