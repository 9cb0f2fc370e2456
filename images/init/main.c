// PID 1 of the guest and the agent of the host in one: boots the machine, then waits for the host, the shell and the orphans.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "agent.h"

enum { POLLFDS_MAX = 88, READ_FRAMES_PER_TURN = 8 };

// Goes to the console: ttyS0, where the host keeps a log.
void complain(const char *format, ...)
{
	char line[512];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof line - 2)
		length = sizeof line - 2;
	line[length] = '\n';
	if (write(2, "init: ", 6) < 0 || write(2, line, length + 1) < 0) {}
}

bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	bool done = fd >= 0 && write(fd, text, strlen(text)) >= 0;
	if (fd >= 0)
		close(fd);
	return done;
}

// → length of the text, 0 when there is none.
ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	if (length < 0)
		length = 0;
	text[length] = 0;
	return length;
}

void file_place(int fd, int number)
{
	if (fd == number)
		return;
	dup3(fd, number, O_CLOEXEC);
	close(fd);
}

static void reap(int signals)
{
	struct signalfd_siginfo info[16];
	while (read(signals, info, sizeof info) > 0) {}
	pid_t pid;
	int status;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		shell_ended(pid, status);
		compact_ended(pid);
		export_ended(pid, status);
	}
}

static int sooner(int a, int b)
{
	return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

// → whether a file is being read and there is credit to send it.
static bool pump_files(void)
{
	bool more = false;
	for (int i = 0; i < CALLS_MAX; i++)
		for (int n = 0; n < READ_FRAMES_PER_TURN && calls[i].id && calls[i].op == READ; n++)
			more |= read_pump(&calls[i]);
	return more;
}

int main(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	boot();
	shell_reserve_files();
	process_open();

	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	int signals = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		complain("cannot lock memory: %m");
	shell_start();
	channel_open();
	channel_hello(0);

	for (;;) {
		struct pollfd set[POLLFDS_MAX];
		int used = 0;
		bool busy = pump_files();
		set[used++] = (struct pollfd){ .fd = channel_fd(), .events = POLLIN };
		set[used++] = (struct pollfd){ .fd = signals, .events = POLLIN };
		shell_pollfds(set, &used);
		leftover_pollfds(set, &used);
		export_pollfds(set, &used);
		int64_t now = now_ms();
		int timeout = busy ? 0 : sooner(channel_timeout(now), sooner(shell_timeout(now), leftover_timeout(now)));
		poll(set, used, timeout);
		if (set[1].revents)
			reap(signals);
		if (set[0].revents & POLLIN)
			channel_read();
		else if (set[0].revents)
			usleep(1000);  // the host is not connected
		shell_work();
		export_pump();
		leftover_drain();
		channel_report();
	}
}
