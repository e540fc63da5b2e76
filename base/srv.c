#include "base/srv.h"

#include <ares.h>
#include <ctype.h>
#include <math.h>
#include <string.h>

/* RFC 1035 section 4.1 and RFC 2782. */
enum { HEADER_SIZE = 12, QUESTION_TAIL = 4, RECORD_HEAD = 10, SRV_HEAD = 6, TYPE_CNAME = 5, TYPE_SRV = 33, CLASS_IN = 1 };

struct reader {
	struct bytes message;
	size_t at;
};

static unsigned u16_at(const struct reader *reader, size_t offset)
{
	const uint8_t *data = reader->message.data + reader->at + offset;
	return (unsigned)data[0] << 8 | data[1];
}

static bool has(const struct reader *reader, size_t size)
{
	return reader->message.size - reader->at >= size;
}

/* A name, which may be compressed (RFC 1035 4.1.4). `ret_name` NULL: it is skipped. */
static bool read_name(struct reader *reader, char ret_name[256])
{
	char *name = NULL;
	long size = 0;
	if (!has(reader, 1) || ares_expand_name(reader->message.data + reader->at, reader->message.data, (int)reader->message.size, &name, &size) != ARES_SUCCESS)
		return false;
	bool fits = strlen(name) < 256;
	if (fits && ret_name)
		strcpy(ret_name, name);
	ares_free_string(name);
	reader->at += (size_t)size;
	return fits;
}

static bool is_host_name(const char *name)
{
	return *name && !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.")];
}

static bool read_srv(struct reader reader, size_t size, struct srv_answer *answer)
{
	size_t end = reader.at + size;
	struct srv srv = { .priority = (uint16_t)u16_at(&reader, 0), .weight = (uint16_t)u16_at(&reader, 2), .port = (uint16_t)u16_at(&reader, 4) };
	reader.at += SRV_HEAD;
	if (!read_name(&reader, srv.target) || reader.at != end)
		return false;
	for (char *c = srv.target; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	if (!is_host_name(srv.target) || srv.port == 0)
		return true;
	if (answer->count < SRV_MAX)
		answer->items[answer->count++] = srv;
	else
		answer->cut = true;
	return true;
}

static bool read_record(struct reader *reader, struct srv_answer *answer)
{
	if (!read_name(reader, NULL) || !has(reader, RECORD_HEAD))
		return false;
	unsigned type = u16_at(reader, 0), class = u16_at(reader, 2), size = u16_at(reader, 8);
	uint32_t ttl = (uint32_t)u16_at(reader, 4) << 16 | u16_at(reader, 6);
	reader->at += RECORD_HEAD;
	if (!has(reader, size) || (type == TYPE_SRV && size <= SRV_HEAD))
		return false;
	ttl = ttl > INT32_MAX ? 0 : ttl; /* RFC 2181 section 8 */
	if (class == CLASS_IN && (type == TYPE_SRV || type == TYPE_CNAME) && ttl < answer->ttl_s)
		answer->ttl_s = ttl;
	if (class == CLASS_IN && type == TYPE_SRV && !read_srv(*reader, size, answer))
		return false;
	reader->at += size;
	return true;
}

enum status srv_parse(struct bytes message, struct srv_answer *ret_answer)
{
	struct reader reader = { message, 0 };
	*ret_answer = (struct srv_answer){ .ttl_s = INT32_MAX };
	if (message.size < HEADER_SIZE || message.size > UINT16_MAX)
		return STATUS_LOCAL_INPUT;
	unsigned questions = u16_at(&reader, 4), answers = u16_at(&reader, 6);
	reader.at = HEADER_SIZE;
	bool good = true;
	for (unsigned i = 0; good && i < questions; i++) {
		good = read_name(&reader, NULL) && has(&reader, QUESTION_TAIL);
		reader.at += good ? QUESTION_TAIL : 0;
	}
	for (unsigned i = 0; good && i < answers; i++)
		good = read_record(&reader, ret_answer);
	return good ? STATUS_OK : STATUS_LOCAL_INPUT;
}

/* Exponential variables with the weights as their rates come out in just that order (Efraimidis and Spirakis). */
double srv_key(uint16_t weight, uint32_t random)
{
	return -log((random + 1.0) / 4294967297.0) / (weight > 0 ? weight : 0.01);
}
