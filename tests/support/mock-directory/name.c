#include "name.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <wctype.h>

uint32_t text_next(const char **at, const char *end)
{
	const unsigned char *octet = (const unsigned char *)*at;
	size_t left = (size_t)(end - *at);
	unsigned more = *octet >= 0xf0 && *octet < 0xf5 ? 3 : *octet >= 0xe0 && *octet < 0xf0 ? 2 : *octet >= 0xc2 && *octet < 0xe0 ? 1 : 0;
	if (!more || more >= left) {
		++*at;
		return *octet;
	}
	uint32_t code = *octet & (0x3fu >> more);
	for (unsigned i = 1; i <= more; i++) {
		if ((octet[i] & 0xc0) != 0x80) {
			++*at;
			return *octet;
		}
		code = code << 6 | (octet[i] & 0x3f);
	}
	*at += more + 1;
	return code;
}

static char *put_code(char *out, uint32_t code)
{
	if (code < 0x80) {
		*out++ = (char)code;
	} else if (code < 0x800) {
		*out++ = (char)(0xc0 | code >> 6);
		*out++ = (char)(0x80 | (code & 0x3f));
	} else if (code < 0x10000) {
		*out++ = (char)(0xe0 | code >> 12);
		*out++ = (char)(0x80 | (code >> 6 & 0x3f));
		*out++ = (char)(0x80 | (code & 0x3f));
	} else {
		*out++ = (char)(0xf0 | code >> 18);
		*out++ = (char)(0x80 | (code >> 12 & 0x3f));
		*out++ = (char)(0x80 | (code >> 6 & 0x3f));
		*out++ = (char)(0x80 | (code & 0x3f));
	}
	return out;
}

struct value text_fold(struct arena *arena, struct value text)
{
	/* A lower-case letter may take more octets than its capital: U+023A does. */
	char *folded = arena_take(arena, text.size * 2 + 1), *out = folded;
	for (const char *at = text.data, *end = text.data + text.size; at < end;) {
		const char *before = at;
		uint32_t code = text_next(&at, end);
		if (code >= 0x80 && at == before + 1)
			*out++ = *before;
		else
			out = put_code(out, code < 0x80 ? (uint32_t)tolower((int)code) : (uint32_t)towlower((wint_t)code));
	}
	*out = 0;
	return (struct value){ folded, (size_t)(out - folded) };
}

static bool is_ascii(struct value text)
{
	for (size_t i = 0; i < text.size; i++)
		if ((unsigned char)text.data[i] >= 0x80)
			return false;
	return true;
}

bool text_equal(struct arena *arena, struct value a, struct value b)
{
	if (a.size == b.size && !strncasecmp(a.data, b.data, a.size) && !memchr(a.data, 0, a.size))
		return true;
	if (is_ascii(a) || is_ascii(b))
		return false;
	struct value folded_a = text_fold(arena, a), folded_b = text_fold(arena, b);
	return folded_a.size == folded_b.size && !memcmp(folded_a.data, folded_b.data, folded_a.size);
}

static int hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

/* One attribute value up to an unescaped ',' or the end, unescaped and without blanks around it. False: bad syntax. */
static bool take_value(const char **at, const char *end, char *out, size_t *ret_size)
{
	const char *in = *at;
	size_t size = 0, keep = 0;
	while (in < end && *in == ' ')
		in++;
	if (in < end && *in == '#')
		return false;
	while (in < end && *in != ',' && *in != ';') {
		if (*in == '\\') {
			if (end - in >= 3 && hex_digit(in[1]) >= 0 && hex_digit(in[2]) >= 0) {
				out[size++] = (char)(hex_digit(in[1]) << 4 | hex_digit(in[2]));
				in += 3;
			} else if (end - in >= 2) {
				out[size++] = in[1];
				in += 2;
			} else {
				return false;
			}
			keep = size;
			continue;
		}
		if (strchr("\"+<>", *in))
			return false;
		out[size++] = *in;
		if (*in++ != ' ')
			keep = size;
	}
	*at = in;
	*ret_size = keep;
	return keep > 0;
}

char *name_fold(struct arena *arena, struct value name)
{
	const char *at = name.data, *end = at + name.size;
	char *folded = arena_take(arena, name.size * 6 + 8), *out = folded;
	char *scratch = arena_take(arena, name.size + 1);
	while (at < end) {
		while (at < end && *at == ' ')
			at++;
		const char *type = at;
		while (at < end && (isalnum((unsigned char)*at) || *at == '-' || *at == '.'))
			*out++ = (char)tolower((unsigned char)*at++);
		if (at == type)
			return NULL;
		while (at < end && *at == ' ')
			at++;
		size_t size;
		if (at >= end || *at++ != '=' || !take_value(&at, end, scratch, &size))
			return NULL;
		*out++ = '=';
		struct value value = text_fold(arena, (struct value){ scratch, size });
		for (size_t i = 0; i < value.size; i++) {
			unsigned char octet = (unsigned char)value.data[i];
			if (strchr(",;=+<>\"\\#", octet) || !octet) {
				*out++ = '\\';
				*out++ = "0123456789abcdef"[octet >> 4];
				*out++ = "0123456789abcdef"[octet & 15];
			} else {
				*out++ = (char)octet;
			}
		}
		if (at < end) {
			*out++ = ',';
			if (++at == end)
				return NULL;
		}
	}
	*out = 0;
	return folded;
}

char *name_escape(struct arena *arena, const char *value)
{
	size_t length = strlen(value);
	char *escaped = arena_take(arena, length * 3 + 1), *out = escaped;
	for (size_t i = 0; i < length; i++) {
		bool edge = (value[i] == ' ' && (i == 0 || i == length - 1)) || (value[i] == '#' && i == 0);
		if (value[i] == '\r' || value[i] == '\n') {
			memcpy(out, value[i] == '\r' ? "\\0D" : "\\0A", 3);
			out += 3;
			continue;
		}
		if (edge || strchr(",\\+<>;\"=", value[i]))
			*out++ = '\\';
		*out++ = value[i];
	}
	*out = 0;
	return escaped;
}

const char *name_parent(const char *folded)
{
	const char *comma = strchr(folded, ',');
	return comma ? comma + 1 : folded + strlen(folded);
}

bool name_is_below(const char *folded, const char *folded_base)
{
	size_t size = strlen(folded), base = strlen(folded_base);
	if (!base)
		return true;
	return size >= base && !strcmp(folded + size - base, folded_base) && (size == base || folded[size - base - 1] == ',');
}
