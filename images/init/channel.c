// The port: bytes to frames and frames to bytes, and the counts that keep either side from sending too much.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "agent.h"

enum { PIECES_PER_TURN = 32, REPORT_PIECES = 32, REPORT_AFTER_MS = 20 };

uint32_t credit;
struct call calls[CALLS_MAX];

static int port = -1;
static uint32_t pieces, pieces_reported;
static int64_t report_at;  // when to say how many, if no frame has said it by then
static bool out_of_step;  // a header made no sense: drop everything until a piece begins with RESET

static _Alignas(8) uint8_t sent[FRAME_HEADER + FRAME_PAYLOAD_MAX];
static _Alignas(8) uint8_t frame[FRAME_HEADER + FRAME_PAYLOAD_MAX];
static size_t frame_length;

// The device's number depends on the order in which the kernel found the virtio devices; there is only one console among them.
void channel_open(void)
{
	char name[] = "/dev/vport0p1";
	for (int attempt = 0; port < 0; attempt++) {
		name[10] = '0' + attempt % 10;
		port = open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (attempt == 5000)
			complain("cannot open the port: %m");
		if (port < 0 && attempt % 10 == 9)
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
}

int channel_fd(void) { return port; }

uint8_t *channel_payload(void) { return sent + FRAME_HEADER; }

void channel_send(enum guest_frame type, uint32_t call, size_t length)
{
	*(struct frame_header *)sent = (struct frame_header){ .type = type, .call = call, .length = length, .consumed = pieces };
	pieces_reported = pieces;
	// v86 takes a frame while the write is under way, so waiting here is the rare exception, not a stall.
	while (write(port, sent, FRAME_HEADER + length) < 0) {
		if (errno == EAGAIN)
			poll(&(struct pollfd){ .fd = port, .events = POLLOUT }, 1, 1000);
		else if (errno == ENOMEM || errno == EINTR)
			nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
		else {
			complain("cannot write to the port: %m");
			return;
		}
	}
}

void channel_fail(uint32_t call, int error, const char *format, ...)
{
	char message[512];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof message)
		length = sizeof message - 1;
	memcpy(channel_payload(), &(int32_t){ error }, 4);
	memcpy(channel_payload() + 4, message, length);
	channel_send(FAIL, call, 4 + length);
}

void channel_hello(uint32_t epoch)
{
	struct utsname kernel;
	uname(&kernel);
	uint8_t *at = channel_payload();
	memcpy(at, (uint32_t[]){ PROTOCOL_VERSION, shell_is_bash() ? 1 : 0 }, 8);
	size_t length = 8 + sprintf((char *)at + 8, "%.60s", kernel.release) + 1;
	length += sprintf((char *)at + length, "%s", shell_path());
	channel_send(HELLO, epoch, length);
}

int channel_timeout(int64_t now)
{
	if (pieces == pieces_reported)
		return -1;
	return report_at > now ? (int)(report_at - now) : 0;
}

void channel_report(void)
{
	if (channel_timeout(now_ms()) == 0)
		channel_send(CONSUMED, 0, 0);
}

void call_end(struct call *call)
{
	if (call->fd >= 0)
		close(call->fd);
	if (call->folder >= 0)
		close(call->folder);
	memset(call, 0, sizeof *call);
	call->fd = call->folder = -1;
}

static struct call *call_find(uint32_t id)
{
	for (int i = 0; i < CALLS_MAX; i++)
		if (calls[i].id == id)
			return &calls[i];
	return NULL;
}

static void handle_reset(uint32_t epoch, const uint8_t *payload)
{
	struct reset_payload reset;
	memcpy(&reset, payload, sizeof reset);
	clock_set(reset.wall_clock_us);
	seed_random(reset.seed);
	run_forget();
	for (int i = 0; i < CALLS_MAX; i++) {
		if (calls[i].id == 0)
			continue;
		if (calls[i].op == WRITE)
			write_abandon(&calls[i]);
		if (calls[i].op == COMPACT)
			compact_cancel(&calls[i]);
		if (calls[i].op == EXPORT)
			export_cancel(&calls[i]);
		call_end(&calls[i]);
	}
	credit = reset.credit;
	pieces = 1;
	pieces_reported = 0;
	channel_hello(epoch);
}

static void handle_open(uint32_t id, const uint8_t *payload, size_t length)
{
	if (id == 0 || length < 4 || call_find(id)) {
		if (id != 0)
			channel_fail(id, EINVAL, "the call cannot be opened");
		return;
	}
	struct call *call = call_find(0);
	if (!call) {
		channel_fail(id, EBUSY, "more than %d calls are open", CALLS_MAX);
		return;
	}
	*call = (struct call){ .id = id, .op = payload[0], .fd = -1, .folder = -1 };
	payload += 4;
	length -= 4;
	switch (call->op) {
	case RUN: run_open(call, payload, length); break;
	case READ: read_open(call, payload, length); break;
	case WRITE: write_open(call, payload, length); break;
	case COMPACT: compact_start(call); break;
	case POWEROFF: power_off(id); break;
	case EXPORT: export_start(call); break;
	default:
		channel_fail(id, ENOSYS, "op %u is not known", call->op);
		call_end(call);
	}
}

static void handle_cancel(struct call *call)
{
	if (call->op == RUN) {
		run_cancel(call);
		return;
	}
	if (call->op == WRITE)
		write_abandon(call);
	if (call->op == COMPACT)
		compact_cancel(call);
	if (call->op == EXPORT)
		export_cancel(call);
	channel_fail(call->id, ECANCELED, "cancelled");
	call_end(call);
}

static void handle_frame(void)
{
	struct frame_header header;
	memcpy(&header, frame, sizeof header);
	uint8_t *payload = frame + FRAME_HEADER;
	size_t length = header.length;
	if (header.type == RESET) {
		if (length >= sizeof(struct reset_payload))
			handle_reset(header.call, payload);
		return;
	}
	if (header.type == CREDIT) {
		uint32_t more;
		if (length < 4)
			return;
		memcpy(&more, payload, 4);
		credit = more > UINT32_MAX - credit ? UINT32_MAX : credit + more;
		return;
	}
	if (header.type == WAKE) {
		struct wake_payload wake;
		if (length < sizeof wake)
			return;
		memcpy(&wake, payload, sizeof wake);
		clock_set(wake.wall_clock_us);
		seed_random(wake.seed);
		return;
	}
	if (header.type == OPEN) {
		handle_open(header.call, payload, length);
		return;
	}
	// Frames for a call that has failed meanwhile are on their way still: they mean nothing.
	struct call *call = header.call ? call_find(header.call) : NULL;
	if (!call)
		return;
	if (header.type == CANCEL)
		handle_cancel(call);
	else if (header.type == DATA && !call->input_complete) {
		if (call->op == RUN)
			run_data(call, payload, length);
		else if (call->op == WRITE)
			write_data(call, payload, length);
	} else if (header.type == END && !call->input_complete) {
		call->input_complete = true;
		if (call->op == RUN)
			run_end(call);
		else if (call->op == WRITE)
			write_end(call);
	}
}

static bool header_is_sound(void)
{
	struct frame_header header;
	memcpy(&header, frame, sizeof header);
	return header.type >= RESET && header.type <= WAKE && !header.zero[0] && !header.zero[1] && !header.zero[2] &&
	       !header.consumed && header.length <= FRAME_PAYLOAD_MAX;
}

static void take_piece(const uint8_t *at, size_t left)
{
	if (out_of_step) {
		if (left < FRAME_HEADER || at[0] != RESET || at[1] || at[2] || at[3])
			return;
		out_of_step = false;
		frame_length = 0;
	}
	while (left > 0) {
		size_t wanted = FRAME_HEADER;
		if (frame_length >= FRAME_HEADER)
			wanted += ((struct frame_header *)frame)->length;
		size_t part = wanted - frame_length < left ? wanted - frame_length : left;
		memcpy(frame + frame_length, at, part);
		frame_length += part;
		at += part;
		left -= part;
		if (frame_length == FRAME_HEADER) {
			if (!header_is_sound()) {
				complain("the host sent a frame that makes no sense");
				out_of_step = true;
				frame_length = 0;
				return;
			}
			wanted += ((struct frame_header *)frame)->length;
		}
		if (frame_length == wanted) {
			frame_length = 0;
			handle_frame();
		}
	}
}

void channel_read(void)
{
	static _Alignas(8) uint8_t piece[PIECE_MAX];
	for (int i = 0; i < PIECES_PER_TURN; i++) {
		ssize_t length = read(port, piece, sizeof piece);
		if (length <= 0)
			return;
		if (pieces++ == pieces_reported)
			report_at = now_ms() + REPORT_AFTER_MS;
		take_piece(piece, length);
		if (pieces - pieces_reported >= REPORT_PIECES)
			channel_send(CONSUMED, 0, 0);
	}
}
