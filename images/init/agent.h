// What the parts of the agent know of each other.
#pragma once
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "frame.h"

// A call that the host has opened. One table for all ops; `id` 0 means that the place is free.
struct call {
	uint32_t id;
	uint8_t op;
	bool input_complete;
	int fd;             // READ: the file; WRITE: the temporary file or, appending, the target
	uint64_t done;      // bytes taken or sent so far
	uint64_t limit;     // READ: bytes asked for
	uint64_t size;      // READ: size of the file; WRITE: size before appending
	uint32_t mode;      // READ: the file's mode; WRITE: the mode asked for
	bool append;
	int folder;         // WRITE: the target's folder
	char name[256], temporary[256];
};
extern struct call calls[CALLS_MAX];
void call_end(struct call *);

// boot.c
void boot(void);
extern int upper_folder;   // the overlay's upper folder, -1: there is none
extern bool root_is_host;  // the root is the 9p tree itself, no overlay

// channel.c
extern uint32_t credit;    // bytes of output that the host still takes
void channel_open(void);
int channel_fd(void);
void channel_read(void);                // reads what has arrived and hands frames to the call table
int channel_timeout(int64_t now);       // ms until channel_report wants to be called, -1: never
void channel_report(void);              // says how many pieces were read, if no frame has said it for a while
uint8_t *channel_payload(void);         // where the next payload may be built in place
void channel_send(enum guest_frame, uint32_t call, size_t length);  // sends what channel_payload() holds
void channel_hello(uint32_t epoch);
void channel_fail(uint32_t call, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

// clock.c
int64_t now_ms(void);
void clock_set(uint64_t wall_clock_us);
void seed_random(const uint8_t seed[32]);

// shell.c
void shell_reserve_files(void);
void shell_start(void);
bool shell_is_bash(void);
const char *shell_path(void);
int shell_folder(char *path, size_t size);  // a name for the shell's current folder that may be prefixed to a relative path
void shell_ended(pid_t, int status);
void shell_pollfds(struct pollfd *, int *count);
int shell_timeout(int64_t now);             // ms until shell_work wants to be called, -1: never
void shell_work(void);
void run_open(struct call *, const uint8_t *arguments, size_t length);
void run_data(struct call *, const uint8_t *data, size_t length);
void run_end(struct call *);
void run_cancel(struct call *);
void run_forget(void);                      // RESET: stop the command and drop its output

// command.c: the command's text, on its way to the shell
void command_start(void);
void command_begin(bool shell_is_idle);
void command_add(const uint8_t *text, size_t);
int command_end(int code);                  // the command finds `code` in $?; → 0, or why the text is not whole (errno)

// environment.c
char **environment_make(const char *shell);   // for execve, in the child: its memory is not given back

// leftover.c: pipes that background processes still hold
void leftover_add(int fd);
void leftover_pollfds(struct pollfd *, int *count);
int leftover_timeout(int64_t now);
void leftover_drain(void);

// process.c
void process_open(void);
void process_join(void);                    // in a child: enter the group, become ordinary
int process_count(pid_t shell);             // processes in the group without the shell
bool process_limit_near(void);
uint64_t process_limit_hits(void);
void process_kill_group(pid_t shell);
void process_mark(pid_t shell);             // remember what runs before a command starts; 0: nothing does
void process_stage_reset(void);
void process_kill_children(pid_t shell);          // those that the command started, whatever their session
int process_signal_session(pid_t session, pid_t shell, int signal, int stage);  // → how many are still alive

// files.c
void read_open(struct call *, const uint8_t *arguments, size_t length);
bool read_pump(struct call *);              // sends one frame; false: nothing to do
void write_open(struct call *, const uint8_t *arguments, size_t length);
void write_data(struct call *, const uint8_t *data, size_t length);
void write_end(struct call *);
void write_abandon(struct call *);

// power.c
void compact_start(struct call *);
void compact_ended(pid_t);
void compact_cancel(struct call *);
void power_off(uint32_t call);

// export.c
void export_start(struct call *);
void export_pollfds(struct pollfd *, int *count);
void export_pump(void);
void export_ended(pid_t, int status);
void export_cancel(struct call *);

// Files of the agent that the shell opens by number. /proc/1/fd/N works for pipes and memfds alike.
enum { COMMAND_FILE = 3, OUT_FILE, ERR_FILE, DONE_FILE, NULL_FILE };

// main.c
void file_place(int fd, int number);        // moves an open file to that number
bool write_text(const char *path, const char *text);
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
ssize_t read_text(const char *path, char *text, size_t size);
