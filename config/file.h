/* file: what is wrong with a file that a configuration or a command line names, in words that say what would be right. Opens it, reads what it must, keeps nothing. */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* True with a sentence where secret_read_file would refuse it: missing, not to be read, a folder, readable by others, writable by its group, empty, more than one line, too long. */
bool file_secret_fault(const char *path, char *why, size_t capacity);
/* True with a sentence where it is not a readable regular file. */
bool file_plain_fault(const char *path, char *why, size_t capacity);

#endif
