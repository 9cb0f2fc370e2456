// The text of a command on its way to the shell: an assignment, in a file in memory that the shell reads with `.`.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "agent.h"

enum { GATHERED_MAX = 8192 };

static int file = -1;             // COMMAND_FILE, or another when the shell may still be reading that
static size_t length;             // bytes in the file
static char gathered[GATHERED_MAX];
static size_t used;
static int error;                 // why the text is not whole

static void flush(void)
{
	size_t at = 0;
	while (at < used && !error) {
		ssize_t part = write(file, gathered + at, used - at);
		if (part > 0)
			at += part;
		else
			error = part < 0 ? errno : ENOSPC;
	}
	length += used;
	used = 0;
}

static void add(const char *text, size_t size)
{
	if (used + size > GATHERED_MAX)
		flush();
	memcpy(gathered + used, text, size);
	used += size;
}

void command_start(void)
{
	int memory = memfd_create("command", MFD_CLOEXEC);
	if (memory < 0)
		complain("no memory file: %m");
	file_place(memory, COMMAND_FILE);
}

void command_begin(bool shell_is_idle)
{
	static const char begin[] = "__sandbox86='";
	if (file > COMMAND_FILE)
		close(file);
	file = shell_is_idle ? COMMAND_FILE : memfd_create("command", MFD_CLOEXEC);
	error = file < 0 ? errno : 0;
	length = used = 0;
	lseek(file, 0, SEEK_SET);
	add(begin, sizeof begin - 1);
}

void command_add(const uint8_t *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (text[i] == '\'')
			add("'\\''", 4);
		else
			add((const char *)text + i, 1);
}

int command_end(int code)
{
	char end[32];
	add(end, code ? sprintf(end, "'\nreturn %d\n", code) : sprintf(end, "'\n"));
	flush();
	if (!error && ftruncate(file, length) < 0)
		error = errno;
	if (!error && file != COMMAND_FILE) {
		file_place(file, COMMAND_FILE);
		file = COMMAND_FILE;
	}
	return error;
}
