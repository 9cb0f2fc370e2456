// The environment that a shell starts with: what every shell has, and over it the guest's own /etc/environment.
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent.h"

enum {
	FILE_MAX = 192 << 10,
	VARIABLES_MAX = 320,
	VARIABLE_MAX = (128 << 10) - 1,  // execve takes no longer string (MAX_ARG_STRLEN)
};

static int count;
static char *variables[VARIABLES_MAX + 1];

static void set(char *variable, size_t name)
{
	int at = 0;
	while (at < count && (strncmp(variables[at], variable, name) || variables[at][name] != '='))
		at++;
	if (at == VARIABLES_MAX)
		return;
	variables[at] = variable;
	if (at == count)
		count++;
}

// NAME=VALUE, as pam_env(8) reads it: blanks and `export ` before it, one pair of quotes around the value. A `#` counts only at
// the beginning, so that a value may hold one. What is no variable is ignored.
static void take_line(char *line, size_t length)
{
	line[length] = 0;
	if (strlen(line) != length)
		return;
	line += strspn(line, " \t");
	if (!strncmp(line, "export ", 7))
		line += 7 + strspn(line + 7, " \t");
	size_t name = 0;
	while (isalnum((unsigned char)line[name]) || line[name] == '_')
		name++;
	if (name == 0 || isdigit((unsigned char)*line) || line[name] != '=')
		return;
	char *value = line + name + 1;
	size_t size = strlen(value);
	if (size >= 2 && (*value == '"' || *value == '\'') && value[size - 1] == *value) {
		size -= 2;
		memmove(value, value + 1, size);
		value[size] = 0;
	}
	if (value + size - line <= VARIABLE_MAX)
		set(line, name);
}

// A line that the bound cuts through counts as none.
static void read_file(void)
{
	int fd = open("/etc/environment", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat about;
	if (fd < 0)
		return;
	char *text = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) ? malloc(FILE_MAX + 1) : NULL;
	size_t length = 0;
	ssize_t part;
	while (text && length < FILE_MAX && (part = read(fd, text + length, FILE_MAX - length)) > 0)
		length += part;
	close(fd);
	for (size_t at = 0; at < length;) {
		char *end = memchr(text + at, '\n', length - at);
		if (!end && length == FILE_MAX)
			return;
		size_t line = end ? (size_t)(end - text) - at : length - at;
		take_line(text + at, line);
		at += line + 1;
	}
}

char **environment_make(const char *shell)
{
	static char shell_variable[64];
	static char *fixed[] = {
		"HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TERM=dumb", "PAGER=cat", "GIT_PAGER=cat",
		"DEBIAN_FRONTEND=noninteractive", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", shell_variable,
	};
	snprintf(shell_variable, sizeof shell_variable, "SHELL=%s", shell);
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		set(fixed[i], strcspn(fixed[i], "="));
	read_file();
	return variables;
}
