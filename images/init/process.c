// Processes: the group that commands run in, who of them is alive, and how to stop them.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include "agent.h"

#define GROUP "/sys/fs/cgroup/sandbox"

enum {
	PID_MAX = 32768,         // the most that a 32-bit kernel gives
	PROCESSES_PER_MIB = 1,   // a fork of a shell costs some 200 KiB, and 10 ms when it is killed
	PROCESSES_MIN = 256,
	PROCESSES_MAX = 4096,
	DYING_PASSES_MAX = 150,
	DYING_PAUSE_US = 20000,
};

static int proc = -1, members = -1, current = -1, events = -1;
static long limit;
static uint8_t marked[PID_MAX / 8];   // ran before the command started
static uint8_t stages[PID_MAX];       // the strongest signal that a process was sent during this cancel

void process_open(void)
{
	struct sysinfo system;
	sysinfo(&system);
	limit = (uint64_t)system.totalram * system.mem_unit / (1 << 20) * PROCESSES_PER_MIB;
	limit = limit < PROCESSES_MIN ? PROCESSES_MIN : limit > PROCESSES_MAX ? PROCESSES_MAX : limit;

	proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	write_text("/sys/fs/cgroup/cgroup.subtree_control", "+pids");
	if (mkdir(GROUP, 0755) < 0 && errno != EEXIST)
		complain("cannot make the process group: %m");
	char text[16];
	snprintf(text, sizeof text, "%ld", limit);
	write_text(GROUP "/pids.max", text);
	members = open(GROUP "/cgroup.procs", O_RDWR | O_CLOEXEC);
	current = open(GROUP "/pids.current", O_RDONLY | O_CLOEXEC);
	events = open(GROUP "/pids.events", O_RDONLY | O_CLOEXEC);
	if (proc < 0 || members < 0 || current < 0 || events < 0)
		complain("no process limit: %m");

	// First in line whatever the commands do; children start as ordinary processes.
	struct sched_param first = { .sched_priority = 1 };
	if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) < 0)
		complain("no realtime priority: %m");
	write_text("/proc/self/oom_score_adj", "-1000");
}

void process_join(void)
{
	if (write(members, "0", 1) < 0) {}
	write_text("/proc/self/oom_score_adj", "0");
}

static long read_number(int fd, const char *after)
{
	char text[64];
	ssize_t length = pread(fd, text, sizeof text - 1, 0);
	if (length < 0)
		return 0;
	text[length] = 0;
	const char *at = after ? strstr(text, after) : text;
	return at ? atol(at + (after ? strlen(after) : 0)) : 0;
}

uint64_t process_limit_hits(void) { return read_number(events, "max "); }

bool process_limit_near(void) { return read_number(current, NULL) >= limit - limit / 8; }

// Calls `each` for every process of the group but the shell; → how many.
static int group_each(pid_t shell, void (*each)(pid_t))
{
	static char text[65536];
	size_t length = 0;
	ssize_t part;
	lseek(members, 0, SEEK_SET);
	while ((part = read(members, text + length, sizeof text - 1 - length)) > 0)
		length += part;
	text[length] = 0;
	int count = 0;
	for (char *at = text; *at;) {
		pid_t pid = strtol(at, &at, 10);
		while (*at == '\n')
			at++;
		if (pid <= 0 || pid == shell)
			continue;
		count++;
		if (each)
			each(pid);
	}
	return count;
}

int process_count(pid_t shell)
{
	if (read_number(current, NULL) <= (shell ? 1 : 0))
		return 0;
	return group_each(shell, NULL);
}

static void kill_hard(pid_t pid) { kill(pid, SIGKILL); }

// With one CPU and realtime priority nothing of the group runs in between, and a process with SIGKILL pending cannot fork:
// one pass is enough, the others are for what was being born. Dying takes hundreds of processes a while; nothing else of
// use could happen meanwhile, so this waits.
void process_kill_group(pid_t shell)
{
	for (int pass = 0; pass < DYING_PASSES_MAX && group_each(shell, kill_hard) > 0; pass++)
		usleep(DYING_PAUSE_US);
}

// → 'Z' and the like, or 0 when the process is gone.
static char process_state(pid_t pid, pid_t *parent)
{
	char path[32], text[256];
	snprintf(path, sizeof path, "%d/stat", pid);
	int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t length = read(fd, text, sizeof text - 1);
	close(fd);
	if (length <= 0)
		return 0;
	text[length] = 0;
	char *name_end = strrchr(text, ')');
	if (!name_end || !name_end[1])
		return 0;
	if (parent)
		*parent = atoi(name_end + 3);
	return name_end[2];
}

struct entry {
	uint64_t inode, offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

// `session` 0 stands for all of them.
static int session_each(pid_t session, pid_t shell, int (*each)(pid_t, int, int), int signal, int stage)
{
	static _Alignas(8) char buffer[32768];
	int count = 0;
	ssize_t length;
	lseek(proc, 0, SEEK_SET);
	while ((length = syscall(SYS_getdents64, proc, buffer, sizeof buffer)) > 0) {
		for (ssize_t at = 0; at < length;) {
			struct entry *entry = (struct entry *)(buffer + at);
			at += entry->length;
			pid_t pid = atoi(entry->name);
			if (pid > 1 && pid < PID_MAX && pid != shell && (!session || getsid(pid) == session))
				count += each(pid, signal, stage);
		}
	}
	return count;
}

static int mark_one(pid_t pid, int signal, int stage)
{
	(void)signal, (void)stage;
	marked[pid / 8] |= 1 << pid % 8;
	return 1;
}

void process_mark(pid_t shell)
{
	memset(marked, 0, sizeof marked);
	if (shell)
		session_each(0, shell, mark_one, 0, 0);
}

void process_stage_reset(void) { memset(stages, 0, sizeof stages); }

static int signal_one(pid_t pid, int signal, int stage)
{
	if (marked[pid / 8] & 1 << pid % 8)
		return 0;
	if (stages[pid] < stage) {
		stages[pid] = stage;
		kill(pid, signal);
		return 1;
	}
	char state = process_state(pid, NULL);
	return state != 0 && state != 'Z' && state != 'X';
}

static pid_t children_of;

static int kill_child(pid_t pid, int signal, int stage)
{
	(void)stage;
	pid_t parent = 0;
	if (!(marked[pid / 8] & 1 << pid % 8) && process_state(pid, &parent) && parent == children_of)
		kill(pid, signal);
	return 0;
}

void process_kill_children(pid_t shell)
{
	children_of = shell;
	session_each(0, shell, kill_child, SIGKILL, 0);
}

int process_signal_session(pid_t session, pid_t shell, int signal, int stage)
{
	return session_each(session, shell, signal_one, signal, stage);
}
