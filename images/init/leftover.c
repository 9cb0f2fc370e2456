// Pipes of commands that are over, which a process in the background still holds. Their output is read and dropped, so that
// the process neither waits nor dies of SIGPIPE; slowly, so that a busy one does not keep the agent busy.
#include <string.h>
#include <unistd.h>
#include "agent.h"

enum { LEFTOVERS_MAX = 64, PAUSE_MS = 10 };

static int leftovers[LEFTOVERS_MAX];
static int count;
static int64_t paused_until;

static void leftover_remove(int at)
{
	close(leftovers[at]);
	memmove(leftovers + at, leftovers + at + 1, (--count - at) * sizeof *leftovers);
}

void leftover_add(int fd)
{
	if (count == LEFTOVERS_MAX)
		leftover_remove(0);
	leftovers[count++] = fd;
}

void leftover_pollfds(struct pollfd *set, int *used)
{
	if (now_ms() < paused_until)
		return;
	for (int i = 0; i < count; i++)
		set[(*used)++] = (struct pollfd){ .fd = leftovers[i], .events = POLLIN };
}

int leftover_timeout(int64_t now)
{
	return count > 0 && now < paused_until ? (int)(paused_until - now) : -1;
}

void leftover_drain(void)
{
	static char dropped[65536];
	int64_t now = now_ms();
	if (count == 0 || now < paused_until)
		return;
	bool busy = false;
	for (int i = 0; i < count; i++) {
		ssize_t length = read(leftovers[i], dropped, sizeof dropped);
		if (length > 0)
			busy = true;
		if (length == 0)
			leftover_remove(i--);
	}
	if (busy)
		paused_until = now + PAUSE_MS;
}
