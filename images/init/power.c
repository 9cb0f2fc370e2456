// COMPACT and POWEROFF.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include "agent.h"

enum { CHUNK = 1 << 20, KEEP_FREE_MIB = 6 };

static pid_t worker;
static uint32_t worker_call;

static uint64_t free_mib(void)
{
	struct sysinfo system;
	sysinfo(&system);
	return (uint64_t)system.freeram * system.mem_unit >> 20;
}

// The kernel zeroes each page that it hands out, so taking nearly all free memory once makes it compressible. A child does it:
// it may die of it.
static void zero_free_memory(void)
{
	write_text("/proc/self/oom_score_adj", "1000");
	while (free_mib() > KEEP_FREE_MIB)
		if (mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) == MAP_FAILED)
			break;
	_exit(0);
}

void compact_start(struct call *call)
{
	call->input_complete = true;
	if (worker) {
		channel_fail(call->id, EBUSY, "already compacting");
		call_end(call);
		return;
	}
	sync();
	write_text("/proc/sys/vm/drop_caches", "3");
	worker_call = call->id;
	worker = fork();
	if (worker == 0)
		zero_free_memory();
	if (worker < 0) {
		worker = 0;
		channel_fail(call->id, errno, "%s", strerror(errno));
		call_end(call);
	}
}

void compact_ended(pid_t pid)
{
	if (!worker || pid != worker)
		return;
	worker = 0;
	for (int i = 0; i < CALLS_MAX; i++)
		if (calls[i].id == worker_call && calls[i].op == COMPACT) {
			memset(channel_payload(), 0, 4);
			channel_send(DONE, worker_call, 4);
			call_end(&calls[i]);
			return;
		}
}

void compact_cancel(struct call *call)
{
	(void)call;
	if (worker)
		kill(worker, SIGKILL);
}

void power_off(uint32_t id)
{
	memset(channel_payload(), 0, 4);
	channel_send(DONE, id, 4);
	kill(-1, SIGTERM);
	usleep(200000);
	kill(-1, SIGKILL);
	usleep(50000);
	sync();
	if (root_is_host)
		mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
