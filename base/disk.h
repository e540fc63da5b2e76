/* disk: what an administrator can do where a file cannot be written. */
#ifndef BASE_DISK_H
#define BASE_DISK_H

#include <stddef.h>

/* Behind strerror(error): ": make room …", or "" where it says enough. */
const char *disk_advice(int error);
/* For who has no errno: what is amiss with the file system of `path`, as above: full, or all but full (less than 1 MiB), read-only, or nothing that can be seen. */
void disk_describe(const char *path, char *text, size_t capacity);

#endif
