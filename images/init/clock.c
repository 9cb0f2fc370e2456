// Time and chance: a restored machine has the clock and the random pool of its snapshot until the host sends its own.
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "agent.h"

enum { CLOCK_TOLERANCE_US = 20000 };

int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void clock_set(uint64_t wall_clock_us)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	int64_t difference = (int64_t)(wall_clock_us - ((uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000));
	if (wall_clock_us == 0 || (difference < CLOCK_TOLERANCE_US && difference > -CLOCK_TOLERANCE_US))
		return;
	t.tv_sec = wall_clock_us / 1000000;
	t.tv_nsec = wall_clock_us % 1000000 * 1000;
	if (clock_settime(CLOCK_REALTIME, &t) < 0)
		complain("cannot set the clock: %m");
}

void seed_random(const uint8_t seed[32])
{
	struct { int entropy_bits, size; uint8_t bytes[32]; } pool = { 256, 32, { 0 } };
	memcpy(pool.bytes, seed, 32);
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		complain("cannot seed the random pool: %m");
	if (fd >= 0)
		close(fd);
	explicit_bzero(&pool, sizeof pool);
}
