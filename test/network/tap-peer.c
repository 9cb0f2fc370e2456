/*
 * A real kernel as the relay's machine: joins a TAP device of a network namespace to the relay's WebSocket.
 *
 *   tap-peer HOST PORT PATH NETNS TAP [FAULTS]
 *
 * HOST: an IPv4 address, reached from the namespace that it is started in. NETNS: a name of `ip netns`. FAULTS: of so many
 * of 1000 frames each way one is dropped, doubled or held back behind the next one, by turns; default 0.
 * Prints "ready" once frames flow; ends with the connection. The mask is zero, as the frames are no secret on loopback.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FRAME = 65549, MAX_HEADER = 14, BATCH = 262144, RECEIVE = 1 << 20 };
enum { WHOLE_BINARY = 0x82, CLOSE = 0x88, MASKED = 0x80, LENGTH_16 = 126, LENGTH_64 = 127 };

static int tap;
static int relay;
static unsigned faults;

static void die(const char *what) {
	perror(what);
	exit(1);
}

static void write_all(const uint8_t *bytes, size_t length) {
	while (length > 0) {
		ssize_t count = write(relay, bytes, length);
		if (count < 0) {
			if (errno == EINTR) continue;
			if (errno == EPIPE || errno == ECONNRESET) exit(0);
			die("write to the relay");
		}
		bytes += count;
		length -= (size_t)count;
	}
}

static int connect_relay(const char *host, const char *port) {
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die(host);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect to the relay");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

/* RFC 6455 4.1. The server sends nothing before our first frame, so that what follows the answer's empty line is ours to read. */
static void shake_hands(const char *host, const char *port, const char *path) {
	char request[1024];
	int length = snprintf(request, sizeof request,
		"GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		path, host, port);
	if (length < 0 || (size_t)length >= sizeof request) die("path too long");
	write_all((const uint8_t *)request, (size_t)length);
	char answer[2048] = "";
	size_t used = 0;
	while (used < 4 || memcmp(answer + used - 4, "\r\n\r\n", 4) != 0) {
		if (used == sizeof answer - 1 || read(relay, answer + used, 1) != 1) die("handshake");
		used++;
	}
	if (strncmp(answer, "HTTP/1.1 101 ", 13) != 0) {
		fprintf(stderr, "the relay answered: %s", answer);
		exit(1);
	}
}

static int open_tap(const char *namespace, const char *name) {
	char path[256];
	snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
	int ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0) die(path);
	close(ns);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) die("/dev/net/tun");
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &request) < 0) die("TUNSETIFF");
	return fd;
}

/* What befalls a frame. */
enum fate { DELIVER, DROP, TWICE, HOLD };

static enum fate fate_of(uint32_t *state) {
	if (faults == 0) return DELIVER;
	*state = *state * 1664525u + 1013904223u; /* Numerical Recipes */
	if ((*state >> 8) % 1000 >= faults) return DELIVER;
	return (enum fate)(1 + (*state >> 20) % 3);
}

struct held {
	uint8_t frame[MAX_FRAME];
	size_t length;
};

/* A message's header without the payload; the mask is zero. */
static size_t put_header(uint8_t *at, size_t length) {
	size_t used = 2;
	at[0] = WHOLE_BINARY;
	if (length < LENGTH_16) {
		at[1] = MASKED | (uint8_t)length;
	} else if (length < 65536) {
		at[1] = MASKED | LENGTH_16;
		at[2] = (uint8_t)(length >> 8);
		at[3] = (uint8_t)length;
		used = 4;
	} else {
		at[1] = MASKED | LENGTH_64;
		memset(at + 2, 0, 4);
		for (int i = 0; i < 4; i++) at[6 + i] = (uint8_t)(length >> (24 - 8 * i));
		used = 10;
	}
	memset(at + used, 0, 4);
	return used + 4;
}

/* From the kernel to the relay: all frames at hand in one write. */
static void *send_frames(void *unused) {
	static uint8_t batch[BATCH + 2 * (MAX_FRAME + MAX_HEADER)];
	static uint8_t frame[MAX_FRAME];
	static struct held held;
	uint32_t state = 1;
	struct pollfd readable = {.fd = tap, .events = POLLIN};
	for (;;) {
		size_t used = 0;
		while (used < BATCH) {
			ssize_t length = read(tap, frame, sizeof frame);
			if (length < 0) break;
			enum fate fate = fate_of(&state);
			if (fate == DROP) continue;
			if (fate == HOLD && held.length == 0) {
				memcpy(held.frame, frame, (size_t)length);
				held.length = (size_t)length;
				continue;
			}
			for (int copies = fate == TWICE ? 2 : 1; copies > 0; copies--) {
				used += put_header(batch + used, (size_t)length);
				memcpy(batch + used, frame, (size_t)length);
				used += (size_t)length;
			}
			if (held.length > 0) {
				used += put_header(batch + used, held.length);
				memcpy(batch + used, held.frame, held.length);
				used += held.length;
				held.length = 0;
			}
		}
		if (used > 0) write_all(batch, used);
		else if (poll(&readable, 1, -1) < 0 && errno != EINTR) die("poll");
	}
	return unused;
}

/* The kernel drops what it has no room for, as a network card does. */
static void to_kernel(const uint8_t *frame, size_t length) {
	if (write(tap, frame, length) < 0 && errno != EAGAIN && errno != EINVAL && errno != EIO) die("write to the TAP");
}

static void deliver(const uint8_t *frame, size_t length) {
	static struct held held;
	static uint32_t state = 2;
	enum fate fate = fate_of(&state);
	if (fate == DROP) return;
	if (fate == HOLD && held.length == 0) {
		memcpy(held.frame, frame, length);
		held.length = length;
		return;
	}
	to_kernel(frame, length);
	if (fate == TWICE) to_kernel(frame, length);
	if (held.length > 0) to_kernel(held.frame, held.length);
	held.length = 0;
}

/* The whole message at `at`, or 0 if bytes are missing. */
static size_t message(const uint8_t *at, size_t available, size_t *header) {
	if (available < 2) return 0;
	size_t length = at[1];
	*header = 2;
	if (length == LENGTH_16) {
		*header = 4;
		if (available < 4) return 0;
		length = (size_t)at[2] << 8 | at[3];
	} else if (length == LENGTH_64) {
		*header = 10;
		if (available < 10) return 0;
		length = (size_t)at[6] << 24 | (size_t)at[7] << 16 | (size_t)at[8] << 8 | at[9];
	}
	if (length > MAX_FRAME) {
		fprintf(stderr, "a message of %zu bytes\n", length);
		exit(1);
	}
	return available < *header + length ? 0 : *header + length;
}

static void receive_frames(void) {
	static uint8_t bytes[RECEIVE];
	size_t used = 0;
	for (;;) {
		ssize_t count = read(relay, bytes + used, sizeof bytes - used);
		if (count < 0 && errno == EINTR) continue;
		if (count <= 0) exit(0);
		used += (size_t)count;
		size_t at = 0, header, length;
		while ((length = message(bytes + at, used - at, &header)) > 0) {
			if (bytes[at] == CLOSE) {
				fprintf(stderr, "closed by the relay: %.*s\n", (int)(length > 4 ? length - 4 : 0), bytes + at + 4);
				exit(0);
			}
			if (bytes[at] == WHOLE_BINARY) deliver(bytes + at + header, length - header);
			at += length;
		}
		memmove(bytes, bytes + at, used - at);
		used -= at;
	}
}

int main(int argc, char **argv) {
	if (argc < 6) {
		fprintf(stderr, "usage: tap-peer HOST PORT PATH NETNS TAP [FAULTS]\n");
		return 2;
	}
	if (argc > 6) faults = (unsigned)atoi(argv[6]);
	relay = connect_relay(argv[1], argv[2]);
	shake_hands(argv[1], argv[2], argv[3]);
	tap = open_tap(argv[4], argv[5]);
	pthread_t sender;
	if (pthread_create(&sender, NULL, send_frames, NULL) != 0) die("pthread_create");
	puts("ready");
	fflush(stdout);
	receive_frames();
}
