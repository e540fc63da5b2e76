/* disk: what an administrator can do where a file cannot be written. */
#ifndef BASE_DISK_H
#define BASE_DISK_H

/* Behind strerror(error): ": make room …", or "" where it says enough. */
const char *disk_advice(int error);

#endif
