#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAP_SIZE (1 << 20)
#define HEAP_SMALLEST 32
#define FILE_LIMIT 4096

bool secret_heap_init(void)
{
	/* 1: locked; 2: works, but could not be locked or guarded; 0: none, and secrets come from malloc (wiped all the same). */
	return CRYPTO_secure_malloc_initialized() || CRYPTO_secure_malloc_init(HEAP_SIZE, HEAP_SMALLEST) == 1;
}

enum status secret_new(size_t capacity, struct secret *ret_secret)
{
	*ret_secret = SECRET_EMPTY;
	size_t size = capacity == 0 ? 1 : capacity;
	uint8_t *data = OPENSSL_secure_zalloc(size);
	if (data == NULL)
		return STATUS_AGENT_INTERNAL;
	*ret_secret = (struct secret){ .data = data, .size = 0, .capacity = size };
	return STATUS_OK;
}

enum status secret_from(struct bytes bytes, struct secret *ret_secret)
{
	enum status status = secret_new(bytes.size, ret_secret);
	if (status != STATUS_OK)
		return status;
	if (bytes.size > 0)
		memcpy(ret_secret->data, bytes.data, bytes.size);
	ret_secret->size = bytes.size;
	return STATUS_OK;
}

void secret_move(struct secret *to, struct secret *from)
{
	if (to == from)
		return;
	secret_wipe(to);
	*to = *from;
	*from = SECRET_EMPTY;
}

void secret_wipe(struct secret *secret)
{
	if (secret == NULL)
		return;
	OPENSSL_secure_clear_free(secret->data, secret->capacity);
	*secret = SECRET_EMPTY;
}

static enum status read_all(int fd, struct secret *secret)
{
	while (secret->size < secret->capacity) {
		ssize_t got = read(fd, secret->data + secret->size, secret->capacity - secret->size);
		if (got == 0)
			return STATUS_OK;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return STATUS_LOCAL_SYSTEM;
		secret->size += (size_t)got;
	}
	return STATUS_LOCAL_INPUT;
}

static enum status take_line(struct secret *secret)
{
	if (secret->size > 0 && secret->data[secret->size - 1] == '\n')
		secret->data[--secret->size] = '\0';
	if (secret->size == 0 || memchr(secret->data, '\n', secret->size) != NULL || memchr(secret->data, '\0', secret->size) != NULL)
		return STATUS_LOCAL_INPUT;
	return STATUS_OK;
}

static enum status read_fd(int fd, struct secret *ret_secret)
{
	struct stat facts;
	if (fstat(fd, &facts) != 0)
		return STATUS_LOCAL_SYSTEM;
	if (!S_ISREG(facts.st_mode) || (facts.st_mode & (S_IWGRP | S_IRWXO)) != 0)
		return STATUS_LOCAL_PERMISSION;
	/* One more for the newline and one to notice that there is more. */
	enum status status = secret_new(FILE_LIMIT + 2, ret_secret);
	if (status == STATUS_OK)
		status = read_all(fd, ret_secret);
	if (status == STATUS_OK)
		status = take_line(ret_secret);
	if (status == STATUS_OK && ret_secret->size > FILE_LIMIT)
		status = STATUS_LOCAL_INPUT;
	return status;
}

enum status secret_read_file(const char *path, struct secret *ret_secret)
{
	*ret_secret = SECRET_EMPTY;
	/* Not blocking: a FIFO must not hold the program up before it is refused. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return STATUS_LOCAL_SYSTEM;
	enum status status = read_fd(fd, ret_secret);
	int error = errno;
	if (status != STATUS_OK)
		secret_wipe(ret_secret);
	close(fd);
	errno = error;
	return status;
}

/* The allocator's own size, not a header of ours: what json_dumps() returns may then also go to free(). */
static void json_wiping_free(void *pointer)
{
	if (pointer != NULL)
		wipe(pointer, malloc_usable_size(pointer));
	free(pointer);
}

void secret_json_init(void)
{
	json_set_alloc_funcs(malloc, json_wiping_free);
	json_object_seed(0);
}

void wipe(void *data, size_t size)
{
	if (data != NULL && size > 0)
		OPENSSL_cleanse(data, size);
}
