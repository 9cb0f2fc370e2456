// The shell that lasts, and RUN. The shell reads one control line per command from a pipe; everything else that it needs
// are open files of the agent under constant names, so nothing in the guest's file system can be removed under its feet.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "agent.h"

#define FILE_NAME(number) "/proc/1/fd/" #number

// `.` sets the command's text and, where it is not 0, the `$?` that it finds; `&&_=` keeps set -e from seeing that (not `:`, a
// fork bomb's favourite name). eval stands at the top level, so that `return` and `local` act as in a script. \builtin and
// \command step over aliases and functions of the same name. The shell's own fd 2 is /dev/null, so `<&2` gives an empty stdin.
#define TAKE_COMMAND ". " FILE_NAME(3)
#define AFTER_FAILURE "&&_="
// stdin comes first, so that bash puts it back last: a command that closes what bash keeps meanwhile makes bash read the end of its
// script, and so never leaves it waiting with a note that nobody reads.
#define REDIRECTIONS "<&2 >" FILE_NAME(4) " 2>" FILE_NAME(5) ";"
// What says that a command is over; other lines that a DEBUG trap may print mean nothing.
#define NOTE "_86 "
// Bash's own fd 1 is the agent's pipe for notes: a redirection would be a tenth of what the whole line costs (docs/adr/0021).
#define BASH_TEXT(after) TAKE_COMMAND after ";\\builtin eval \"$__sandbox86\"" REDIRECTIONS "\\builtin echo " NOTE "\"$?\""
// Bash takes each byte of its control line by a system call of its own: the line is the name of an alias, whose text counts as
// if it stood there. A command that throws aliases away leaves the function of that name.
#define BASH_LINE "_86\n"
#define BASH_LINE_AFTER_FAILURE "_87\n"
#define BASH_NAMES(name, text) name "(){ " text ";}\nalias " name "='" text "'\n"
// `command` keeps an error, such as one of syntax, from ending ash and dash. That is also how signal 64 cancels: its trap fails, and
// the error leaves all that runs below `command`. But an error in a subshell is caught too, which then runs on to the end of
// this line: it must end there, as it would have done at the error.
#define OTHER_LINE TAKE_COMMAND AFTER_FAILURE ";\\command eval \"$__sandbox86\"" REDIRECTIONS \
	"__sandbox86=$?;\\command [ /proc/self -ef /proc/$$ ]||\\exit \"$__sandbox86\";" \
	"\\command echo \"" NOTE "$__sandbox86\">" FILE_NAME(6) "\n"
#define OTHER_START "trap '{ : \"${__sandbox86_cancelled?}\";} 2>/dev/null' 64\n"

// Signal 64 unwinds bash: with extdebug a DEBUG trap that fails skips each command, and with status 2 it leaves functions;
// `break` leaves loops; set +e keeps all that from ending the shell. So nothing of a cancelled command runs any more but the end
// of the control line. A child that dies of SIGINT makes bash send SIGINT to itself: the same trap keeps that from ending the
// shell. Setting the DEBUG trap while it runs would make bash recurse for ever, so a second signal does nothing, and the note
// "i" tells the agent not to send one.
#define UNWIND \
	"case $BASHOPTS in *extdebug*);;*) \\builtin shopt -s extdebug;\\builtin echo " NOTE "i>" FILE_NAME(6) ";\\builtin set +e;" \
	"\\builtin trap '\\''case $BASH_COMMAND in \"\\builtin echo \"*|\"\\builtin trap - DEBUG\"|" \
	"\"\\builtin shopt -u extdebug\");;*) { break 9999;test 1 -eq x;} 2>/dev/null;esac'\\'' DEBUG;" \
	"{ break 9999;return 124;} 2>/dev/null;;esac"
// An array is exported by nothing: under `set -a` every program would get a plain variable's text.
#define BASH_START \
	"declare -a __sandbox86\nshopt -s expand_aliases\n" \
	BASH_NAMES("_86", BASH_TEXT("")) BASH_NAMES("_87", BASH_TEXT(AFTER_FAILURE)) \
	"trap '" UNWIND "' 64\ntrap '" UNWIND "' INT\n"
#define BASH_REWIND "\\builtin trap - DEBUG;\\builtin shopt -u extdebug\n"

enum {
	UNWIND_SIGNAL = 64,
	UNWIND_AGAIN_MS = 300,
	PIPE_SIZE = 256 << 10,
	QUIET_MS = 4,            // after a small read: let output gather before the next
	BUSY_CHECK_MS = 1000,
	STORM_CHECKS = 3,        // the process limit hit in so many checks in a row: a fork bomb, not a busy build
	TERM_AFTER_MS = 250,
	KILL_AFTER_MS = 1000,
	GIVE_UP_AFTER_MS = 3000,
	TICK_FIRST_MS = 2,
	TICK_LAST_MS = 100,
	EXIT_CANCELLED = 124,
	NOTE_MAX = sizeof NOTE - 1 + 3,
	FAILED_STARTS_MAX = 3,
	START_MS = 500,
};

static struct {
	pid_t pid;                 // 0: there is none
	int control;
	bool is_bash;
	const char *path;
	char folder[PATH_MAX];     // where it was when last seen
	bool restarted;            // the next command is the first one of a shell that had to be started anew
	int64_t started;
	int failed_starts;
} shell = { .control = -1, .path = "", .folder = "/root" };

static enum { IDLE, RUNNING, DRAINING } phase;
static struct {
	uint32_t call;             // 0: forgotten by a RESET
	pid_t session;
	uint32_t flags;
	int32_t code;
	bool returned;             // the shell is through with it
	bool cancelled, rewind;
	int64_t last_tick, next_tick, quiet_until;
	int tick;
	int next_unwind;
	int since_cancel;          // ms, a jump of the clock or a stall of the emulator left out
	uint64_t limit_hits, limit_hits_seen;
	int storm;
	int writers[2];            // keep the pipes open until the command is over
	int left[2];               // DRAINING: bytes of it that are still to be sent
} run;
static struct call *waiting;   // the command to start as soon as the one before is stopped
static int32_t last_code;
static int done_writer = -1;
static char note_line[NOTE_MAX + 1];  // the line that is being read from the pipe for notes
static size_t note_length;
static bool limit_was_hit;     // since the last command
static uint64_t limit_hits;    // as counted when it ended
static int background;         // processes left running, as last told to the host
static int64_t next_busy_check;

static const char *find_shell(void)
{
	static const char *const paths[] = { "/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh", "/usr/bin/sh" };
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}

bool shell_is_bash(void) { return shell.is_bash; }
const char *shell_path(void) { return shell.path; }

static void become_shell(int control)
{
	setsid();
	process_join();
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(control, 0);
	dup2(shell.is_bash ? open(FILE_NAME(6), O_WRONLY | O_CLOEXEC) : NULL_FILE, 1);
	dup2(NULL_FILE, 2);
	if (chdir(shell.folder) < 0 && chdir("/root") < 0 && chdir("/") < 0) {}
	umask(022);
	char *arguments[] = { shell.is_bash ? "bash" : "sh", NULL };
	execve(shell.path, arguments, environment_make(shell.path));
	_exit(127);
}

static bool write_control(const char *line)
{
	ssize_t length = strlen(line);
	return shell.pid && write(shell.control, line, length) == length;
}

static void spawn(void)
{
	int ends[2];
	const char *path = find_shell();
	if (!path || pipe2(ends, O_CLOEXEC) < 0)
		return;
	shell.path = path;
	shell.is_bash = strstr(path, "bash") != NULL;
	shell.started = now_ms();
	pid_t pid = fork();
	if (pid == 0)
		become_shell(ends[0]);
	close(ends[0]);
	if (pid < 0) {
		close(ends[1]);
		return;
	}
	fcntl(ends[1], F_SETFL, O_NONBLOCK);
	shell.control = ends[1];
	shell.pid = pid;
	write_control(shell.is_bash ? BASH_START : OTHER_START);
}

// Before anything else is opened, so that the numbers are free.
void shell_reserve_files(void)
{
	for (int number = COMMAND_FILE; number <= NULL_FILE; number++)
		file_place(open("/dev/null", O_RDWR | O_CLOEXEC), number);
}

void shell_start(void)
{
	command_start();
	int done[2];
	if (pipe2(done, O_CLOEXEC | O_NONBLOCK) < 0)
		complain("no pipe: %m");
	done_writer = fcntl(done[1], F_DUPFD_CLOEXEC, NULL_FILE + 1);
	close(done[1]);
	file_place(done[0], DONE_FILE);
	spawn();
}

// Notes where the shell is. A removed folder keeps the kernel's " (deleted)".
static void note_folder(void)
{
	char link[32], folder[PATH_MAX];
	if (!shell.pid)
		return;
	snprintf(link, sizeof link, "/proc/%d/cwd", shell.pid);
	ssize_t length = readlink(link, folder, sizeof folder - 1);
	if (length <= 0)
		return;
	folder[length] = 0;
	strcpy(shell.folder, folder);
}

int shell_folder(char *path, size_t size)
{
	if (shell.pid)
		return snprintf(path, size, "/proc/%d/cwd/", shell.pid);
	return snprintf(path, size, "%s/", shell.folder);
}

// ---- RUN: from the call to the control line

void run_open(struct call *call, const uint8_t *arguments, size_t length)
{
	uint64_t wall_clock_us;
	for (int i = 0; i < CALLS_MAX; i++)
		if (&calls[i] != call && calls[i].id && calls[i].op == RUN) {
			channel_fail(call->id, EBUSY, "another command is running");
			call_end(call);
			return;
		}
	if (length < 8) {
		channel_fail(call->id, EINVAL, "the command cannot be taken");
		call_end(call);
		return;
	}
	memcpy(&wall_clock_us, arguments, 8);
	clock_set(wall_clock_us);
	command_begin(phase == IDLE);
}

void run_data(struct call *call, const uint8_t *data, size_t length)
{
	call->done += length;
	if (call->done > COMMAND_MAX || memchr(data, 0, length)) {
		bool too_long = call->done > COMMAND_MAX;
		channel_fail(call->id, too_long ? E2BIG : EINVAL,
		             too_long ? "the command is longer than 1 MiB" : "the command contains a NUL");
		call_end(call);
		return;
	}
	command_add(data, length);
}

static bool open_pipe(int number, int *writer)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE);
	*writer = fcntl(ends[1], F_DUPFD_CLOEXEC, NULL_FILE + 1);
	close(ends[1]);
	file_place(ends[0], number);
	return true;
}

static void close_pipe(int number, int writer)
{
	static char dropped[4096];
	close(writer);
	if (read(number, dropped, sizeof dropped) != 0) {
		int kept = fcntl(number, F_DUPFD_CLOEXEC, NULL_FILE + 1);
		if (kept >= 0)
			leftover_add(kept);
	}
	dup3(NULL_FILE, number, O_CLOEXEC);  // lets go of the pipe and keeps the number
}

static void lose_shell(void)
{
	if (shell.control >= 0)
		close(shell.control);
	shell.control = -1;
	shell.pid = 0;
	shell.restarted = true;
}

static void start(struct call *call)
{
	const char *line;
	char dropped[64];
	run = (typeof(run)){ .call = call->id };
	if (limit_was_hit || (background > 0 && process_limit_near())) {
		process_kill_group(shell.pid);
		background = 0;
		run.flags |= LIMIT_HIT;
		limit_was_hit = false;
	}
	int error = command_end(last_code);
	if (error) {
		channel_fail(call->id, error, "no memory for the command: %s", strerror(error));
		call_end(call);
		return;
	}
	if (!open_pipe(OUT_FILE, &run.writers[0]) || !open_pipe(ERR_FILE, &run.writers[1])) {
		channel_fail(call->id, errno, "no pipe: %s", strerror(errno));
		call_end(call);
		return;
	}
	while (read(DONE_FILE, dropped, sizeof dropped) > 0) {}
	note_length = 0;
	for (int attempt = 0; attempt < 2; attempt++) {
		if (!shell.pid)
			spawn();
		process_mark(background > 0 ? shell.pid : 0);
		run.limit_hits = run.limit_hits_seen = background > 0 ? process_limit_hits() : limit_hits;
		next_busy_check = now_ms() + BUSY_CHECK_MS;
		line = !shell.is_bash ? OTHER_LINE : last_code ? BASH_LINE_AFTER_FAILURE : BASH_LINE;
		if (write_control(line)) {
			run.session = shell.pid;
			if (shell.restarted)
				run.flags |= SHELL_NEW;
			shell.restarted = false;
			phase = RUNNING;
			return;
		}
		if (shell.pid) {  // it has ended and nobody told us yet
			kill(shell.pid, SIGKILL);
			waitpid(shell.pid, NULL, 0);
			lose_shell();
		}
	}
	close_pipe(OUT_FILE, run.writers[0]);
	close_pipe(ERR_FILE, run.writers[1]);
	channel_fail(call->id, ENOENT, "no shell can be started: /bin/bash and /bin/sh are missing or broken");
	call_end(call);
}

void run_end(struct call *call)
{
	if (phase == IDLE)
		start(call);
	else
		waiting = call;
}

// ---- RUN: from the end of the command to DONE

static void finish(void)
{
	phase = IDLE;
	close_pipe(OUT_FILE, run.writers[0]);
	close_pipe(ERR_FILE, run.writers[1]);
	if (run.rewind && shell.pid)
		write_control(BASH_REWIND);
	last_code = run.code;
	background = process_count(shell.pid);
	limit_hits = process_limit_hits();
	if (limit_hits > run.limit_hits || (background > 0 && process_limit_near())) {
		process_kill_group(shell.pid);
		background = process_count(shell.pid);
		run.flags |= LIMIT_HIT;
	}
	next_busy_check = now_ms() + BUSY_CHECK_MS;
	if (run.call) {
		uint8_t *at = channel_payload();
		memcpy(at, (uint32_t[]){ run.code, run.flags, background }, 12);
		size_t folder = strlen(shell.folder);
		memcpy(at + 12, shell.folder, folder);
		channel_send(DONE, run.call, 12 + folder);
		for (int i = 0; i < CALLS_MAX; i++)
			if (calls[i].id == run.call)
				call_end(&calls[i]);
	}
	if (!shell.pid) {
		if (!(run.flags & SHELL_REPLACED))
			strcpy(shell.folder, "/root");
		spawn();
	}
	if (waiting) {
		struct call *next = waiting;
		waiting = NULL;
		start(next);
	}
}

static void start_draining(void)
{
	if (!(run.flags & SHELL_REPLACED))
		note_folder();
	phase = DRAINING;
	for (int i = 0; i < 2; i++)
		if (!run.call || ioctl(OUT_FILE + i, FIONREAD, &run.left[i]) < 0)
			run.left[i] = 0;
}

void shell_ended(pid_t pid, int status)
{
	if (pid != shell.pid)
		return;
	lose_shell();
	if (phase == RUNNING && !run.returned) {
		run.returned = true;
		run.code = run.cancelled ? EXIT_CANCELLED : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (!(run.flags & SHELL_REPLACED))
			run.flags |= SHELL_ENDED;
		if (!run.cancelled)
			start_draining();
	} else if (phase == IDLE) {
		shell.failed_starts = now_ms() - shell.started < START_MS ? shell.failed_starts + 1 : 0;
		strcpy(shell.folder, "/root");
		if (shell.failed_starts < FAILED_STARTS_MAX)
			spawn();
	}
}

// "i" when bash has unwound itself, else an exit code.
static void take_note(const char *note)
{
	if (*note == 'i') {
		run.rewind = true;
		return;
	}
	if (*note < '0' || *note > '9' || run.returned)
		return;
	run.returned = true;
	run.code = run.cancelled ? EXIT_CANCELLED : run.rewind ? 128 + SIGINT : atoi(note);
}

// A note ends its line; what stands before it is a DEBUG trap's, and only the line's last bytes are kept.
static void read_notes(void)
{
	char part[256];
	ssize_t length;
	while ((length = read(DONE_FILE, part, sizeof part)) > 0)
		for (ssize_t i = 0; i < length; i++) {
			if (part[i] != '\n') {
				if (note_length == NOTE_MAX)
					memmove(note_line, note_line + 1, --note_length);
				note_line[note_length++] = part[i];
				continue;
			}
			note_line[note_length] = 0;
			char *at = strstr(note_line, NOTE);
			if (at)
				take_note(at + sizeof NOTE - 1);
			note_length = 0;
		}
	if (run.returned && !run.cancelled)
		start_draining();
}

// ---- Output

// → bytes taken from the pipe.
static size_t send_output(int which, size_t most)
{
	bool drop = credit == 0 && run.cancelled;
	size_t wanted = most < FRAME_PAYLOAD_MAX ? most : FRAME_PAYLOAD_MAX;
	if (!drop && wanted > credit)
		wanted = credit;
	if (wanted == 0)
		return 0;
	ssize_t length = read(OUT_FILE + which, channel_payload(), wanted);
	if (length <= 0)
		return 0;
	if (!drop && run.call) {
		credit -= length;
		channel_send(which == 0 ? OUT : ERR, run.call, length);
	}
	return length;
}

static void pump(void)
{
	if (now_ms() < run.quiet_until)
		return;
	size_t total = 0;
	for (int round = 0; round < 16; round++) {
		size_t part = send_output(0, SIZE_MAX);
		part += send_output(1, SIZE_MAX);
		total += part;
		if (part < FRAME_PAYLOAD_MAX)
			break;
	}
	if (total > 0 && total < PIPE_SIZE / 4)
		run.quiet_until = now_ms() + QUIET_MS;
}

static void drain(void)
{
	while (credit > 0 && (run.left[0] > 0 || run.left[1] > 0))
		for (int i = 0; i < 2; i++)
			if (run.left[i] > 0) {
				size_t part = send_output(i, run.left[i]);
				if (part == 0 && credit > 0)
					run.left[i] = 0;
				run.left[i] -= part;
			}
	if (run.left[0] <= 0 && run.left[1] <= 0)
		finish();
}

// ---- Cancel

static void begin_cancel(void)
{
	run.cancelled = true;
	run.flags |= CANCELLED;
	run.last_tick = run.next_tick = now_ms();
	run.since_cancel = 0;
	run.tick = TICK_FIRST_MS;
	process_stage_reset();
	run.quiet_until = 0;
}

void run_cancel(struct call *call)
{
	if (phase == IDLE || call->id != run.call) {
		if (waiting == call)
			waiting = NULL;
		channel_fail(call->id, ECANCELED, "cancelled before it started");
		call_end(call);
	} else if (phase == RUNNING) {
		if (!run.cancelled)
			begin_cancel();
	} else {
		run.flags |= CANCELLED;
		finish();
	}
}

void run_forget(void)
{
	waiting = NULL;
	if (phase == IDLE)
		return;
	run.call = 0;
	if (phase == DRAINING)
		finish();
	else if (!run.cancelled)
		begin_cancel();
}

static void replace_shell(void)
{
	note_folder();
	run.flags |= SHELL_REPLACED;
	kill(shell.pid, SIGKILL);
}

static void cancel_tick(int64_t now)
{
	int64_t passed = now - run.last_tick;
	run.last_tick = now;
	int since = run.since_cancel += passed < 2 * run.tick ? passed : 2 * run.tick;
	// The shell first: nothing that follows in the command may start because what it waits for has died.
	if (!run.returned && shell.pid && !(run.flags & SHELL_REPLACED)) {
		if (since > GIVE_UP_AFTER_MS)
			replace_shell();
		else {
			if (!run.rewind && run.since_cancel >= run.next_unwind) {
				kill(shell.pid, UNWIND_SIGNAL);
				run.next_unwind = run.since_cancel + UNWIND_AGAIN_MS;
			}
			kill(shell.pid, SIGCONT);
		}
	}
	if (process_limit_hits() > run.limit_hits || process_limit_near()) {
		process_kill_group(shell.pid);
		run.flags |= LIMIT_HIT;
	}
	int stage = since < TERM_AFTER_MS ? 1 : since < KILL_AFTER_MS ? 2 : 3;
	// A child that dies of SIGINT takes ash and dash with it.
	const int signals[] = { 0, shell.is_bash ? SIGINT : SIGTERM, SIGTERM, SIGKILL };
	int alive = process_signal_session(run.session, shell.pid, signals[stage], stage);
	if (stage == 3 && !run.returned)
		process_kill_children(shell.pid);
	if (run.returned && (alive == 0 || since > GIVE_UP_AFTER_MS)) {
		start_draining();
		return;
	}
	run.next_tick = now + run.tick;
	run.tick = run.tick * 2 < TICK_LAST_MS ? run.tick * 2 : TICK_LAST_MS;
}

// ---- The main loop's view

// A fork bomb keeps every other program from starting, this command's included: bash gives up after 15 s.
static void check_storm(int64_t now)
{
	next_busy_check = now + BUSY_CHECK_MS;
	uint64_t hits = process_limit_hits();
	run.storm = hits > run.limit_hits_seen ? run.storm + 1 : 0;
	run.limit_hits_seen = hits;
	if (run.storm < STORM_CHECKS)
		return;
	process_kill_group(shell.pid);
	run.flags |= LIMIT_HIT;
	run.storm = 0;
}

static void check_busy(int64_t now)
{
	next_busy_check = now + BUSY_CHECK_MS;
	if (process_limit_near()) {
		process_kill_group(shell.pid);
		limit_was_hit = true;
	}
	int count = process_count(shell.pid);
	if (count == 0) {
		memcpy(channel_payload(), &(uint32_t){ 0 }, 4);
		channel_send(BUSY, 0, 4);
	}
	background = count;
}

void shell_pollfds(struct pollfd *set, int *used)
{
	if (phase != RUNNING)
		return;
	set[(*used)++] = (struct pollfd){ .fd = DONE_FILE, .events = POLLIN };
	if ((credit > 0 || run.cancelled) && now_ms() >= run.quiet_until)
		for (int i = 0; i < 2; i++)
			set[(*used)++] = (struct pollfd){ .fd = OUT_FILE + i, .events = POLLIN };
}

static int until(int64_t then, int64_t now) { return then > now ? (int)(then - now) : 0; }

int shell_timeout(int64_t now)
{
	if (phase == IDLE)
		return background > 0 ? until(next_busy_check, now) : -1;
	if (phase == DRAINING)
		return credit > 0 ? 0 : -1;
	int timeout = until(next_busy_check, now);
	if (run.quiet_until > now && credit > 0 && until(run.quiet_until, now) < timeout)
		timeout = until(run.quiet_until, now);
	if (run.cancelled && until(run.next_tick, now) < timeout)
		timeout = until(run.next_tick, now);
	return timeout;
}

void shell_work(void)
{
	int64_t now = now_ms();
	if (phase == RUNNING)
		read_notes();
	if (phase == RUNNING)
		pump();
	if (phase == RUNNING && now >= next_busy_check)
		check_storm(now);
	if (phase == RUNNING && run.cancelled && (run.returned || now >= run.next_tick))
		cancel_tick(now);
	if (phase == DRAINING)
		drain();
	if (phase == IDLE && background > 0 && now >= next_busy_check)
		check_busy(now);
}
