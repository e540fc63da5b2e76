/* file: what is wrong with a file that a configuration or a command line names, in words that say what would be right. Opens it, reads what it must, keeps nothing. */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A user who is to read files, where that is another than this process's. */
struct file_reader {
	const char *name;
	uid_t uid;
	gid_t gid;
};

/* True with a sentence where secret_read_file would refuse it: missing, not to be read, a folder, readable by others, writable by its group, empty, more than one line, too long. */
bool file_secret_fault(const char *path, char *why, size_t capacity);
/* The same for a file of keys, whatever it holds: a keytab, a private key. */
bool file_private_fault(const char *path, char *why, size_t capacity);
/* True with a sentence where it is not a readable regular file. */
bool file_plain_fault(const char *path, char *why, size_t capacity);
/* True with a sentence where `reader` may not read it, or where it belongs to somebody who is neither root nor he; never where he is NULL. */
bool file_reader_fault(const char *path, const struct file_reader *reader, char *why, size_t capacity);

#endif
