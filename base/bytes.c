#include "base/bytes.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

static const char base64url_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char hex_alphabet[] = "0123456789abcdef";

struct bytes bytes_of_string(const char *text)
{
	return bytes_of(text, text == NULL ? 0 : strlen(text));
}

bool bytes_equal(struct bytes a, struct bytes b)
{
	if (a.size != b.size)
		return false;
	return a.size == 0 || CRYPTO_memcmp(a.data, b.data, a.size) == 0;
}

void auto_free(void *pointer_to_pointer)
{
	void *pointer;
	memcpy(&pointer, pointer_to_pointer, sizeof pointer);
	free(pointer);
}

void base64url_encode(struct bytes in, char *out)
{
	size_t i = 0;
	for (; i + 3 <= in.size; i += 3) {
		uint32_t group = (uint32_t)in.data[i] << 16 | (uint32_t)in.data[i + 1] << 8 | in.data[i + 2];
		*out++ = base64url_alphabet[group >> 18];
		*out++ = base64url_alphabet[group >> 12 & 63];
		*out++ = base64url_alphabet[group >> 6 & 63];
		*out++ = base64url_alphabet[group & 63];
	}
	if (in.size - i == 1) {
		*out++ = base64url_alphabet[in.data[i] >> 2];
		*out++ = base64url_alphabet[(in.data[i] & 3) << 4];
	} else if (in.size - i == 2) {
		*out++ = base64url_alphabet[in.data[i] >> 2];
		*out++ = base64url_alphabet[(in.data[i] & 3) << 4 | in.data[i + 1] >> 4];
		*out++ = base64url_alphabet[(in.data[i + 1] & 15) << 2];
	}
	*out = '\0';
}

char *base64url_encode_new(struct bytes in)
{
	if (in.size > SIZE_MAX / 8)
		return NULL;
	char *text = malloc(BASE64URL_SIZE(in.size) + 1);
	if (text != NULL)
		base64url_encode(in, text);
	return text;
}

/* 0 to 63, or a negative number. Arithmetic instead of a table: what is decoded may be secret, and a table's index shows in the cache. */
static int base64url_value(uint8_t c)
{
	int in_upper = ((int)'A' - 1 - c) & (c - ((int)'Z' + 1));
	int in_lower = ((int)'a' - 1 - c) & (c - ((int)'z' + 1));
	int in_digit = ((int)'0' - 1 - c) & (c - ((int)'9' + 1));
	int is_dash = ~(((int)'-' - c) | (c - (int)'-'));
	int is_underscore = ~(((int)'_' - c) | (c - (int)'_'));
	int value = -1;
	value += (in_upper >> 8) & (c - 'A' + 1);
	value += (in_lower >> 8) & (c - 'a' + 27);
	value += (in_digit >> 8) & (c - '0' + 53);
	value += (is_dash >> 8) & 63;
	value += (is_underscore >> 8) & 64;
	return value;
}

enum status base64url_decode(struct bytes text, uint8_t *out, size_t capacity, size_t *ret_size)
{
	size_t rest = text.size % 4;
	size_t size = text.size / 4 * 3 + (rest == 0 ? 0 : rest - 1);
	if (rest == 1 || size > capacity)
		return STATUS_LOCAL_INPUT;
	uint32_t group = 0;
	int wrong = 0;
	size_t at = 0;
	for (size_t i = 0; i < text.size; i++) {
		int value = base64url_value(text.data[i]);
		wrong |= value;
		group = group << 6 | ((uint32_t)value & 63);
		if (i % 4 == 0)
			continue;
		unsigned spare = (unsigned)(3 - i % 4) * 2;
		out[at++] = (uint8_t)(group >> spare);
		group &= ((uint32_t)1 << spare) - 1;
	}
	/* What is left of the last group are the stray bits. */
	if (wrong < 0 || group != 0)
		return STATUS_LOCAL_INPUT;
	*ret_size = size;
	return STATUS_OK;
}

void hex_encode(struct bytes in, char *out)
{
	for (size_t i = 0; i < in.size; i++) {
		*out++ = hex_alphabet[in.data[i] >> 4];
		*out++ = hex_alphabet[in.data[i] & 15];
	}
	*out = '\0';
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

enum status hex_decode(struct bytes text, uint8_t *out, size_t capacity, size_t *ret_size)
{
	if (text.size % 2 != 0 || text.size / 2 > capacity)
		return STATUS_LOCAL_INPUT;
	for (size_t i = 0; i < text.size / 2; i++) {
		int high = hex_value(text.data[2 * i]), low = hex_value(text.data[2 * i + 1]);
		if (high < 0 || low < 0)
			return STATUS_LOCAL_INPUT;
		out[i] = (uint8_t)(high << 4 | low);
	}
	*ret_size = text.size / 2;
	return STATUS_OK;
}

/* The length of the UTF-8 sequence at data (RFC 3629 section 4), 0 where there is none. */
static size_t utf8_sequence(const uint8_t *data, size_t size)
{
	static const struct { uint8_t first, last, length, second_low, second_high; } rows[] = {
		{ 0x00, 0x7F, 1, 0, 0 },       { 0xC2, 0xDF, 2, 0x80, 0xBF }, { 0xE0, 0xE0, 3, 0xA0, 0xBF },
		{ 0xE1, 0xEC, 3, 0x80, 0xBF }, { 0xED, 0xED, 3, 0x80, 0x9F }, { 0xEE, 0xEF, 3, 0x80, 0xBF },
		{ 0xF0, 0xF0, 4, 0x90, 0xBF }, { 0xF1, 0xF3, 4, 0x80, 0xBF }, { 0xF4, 0xF4, 4, 0x80, 0x8F },
	};
	for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
		if (data[0] < rows[r].first || data[0] > rows[r].last)
			continue;
		if (rows[r].length == 1)
			return 1;
		if (size < rows[r].length || data[1] < rows[r].second_low || data[1] > rows[r].second_high)
			return 0;
		for (size_t i = 2; i < rows[r].length; i++)
			if ((data[i] & 0xC0) != 0x80)
				return 0;
		return rows[r].length;
	}
	return 0;
}

bool utf8_valid(struct bytes text)
{
	for (size_t i = 0; i < text.size;) {
		size_t length = utf8_sequence(text.data + i, text.size - i);
		if (length == 0)
			return false;
		i += length;
	}
	return true;
}

void utf8_mend(char *text)
{
	size_t size = strlen(text);
	for (size_t i = 0, length; i < size; i += length ? length : 1) {
		const uint8_t *at = (const uint8_t *)text + i;
		length = utf8_sequence(at, size - i);
		bool control = length == 1 ? *at < 0x20 || *at == 0x7F : length == 2 && *at == 0xC2 && at[1] < 0xA0;
		if (length == 0 || control)
			memset(text + i, '?', length ? length : 1);
	}
}

size_t utf8_utf16_units(struct bytes text)
{
	size_t units = 0;
	for (size_t i = 0; i < text.size; i++)
		if ((text.data[i] & 0xC0) != 0x80)
			units += text.data[i] >= 0xF0 ? 2 : 1;
	return units;
}

uint32_t utf8_next(struct bytes text, size_t *offset)
{
	uint8_t first = text.data[(*offset)++];
	if (first < 0x80)
		return first;
	unsigned more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
	uint32_t point = first & (0x3Fu >> more);
	while (more-- > 0 && *offset < text.size)
		point = point << 6 | (text.data[(*offset)++] & 0x3F);
	return point;
}

static uint8_t *put_unit(uint8_t *out, uint32_t unit)
{
	out[0] = (uint8_t)unit;
	out[1] = (uint8_t)(unit >> 8);
	return out + 2;
}

void utf8_to_utf16le(struct bytes text, uint8_t *out)
{
	for (size_t offset = 0; offset < text.size;) {
		uint32_t point = utf8_next(text, &offset);
		if (point < 0x10000) {
			out = put_unit(out, point);
		} else {
			out = put_unit(out, 0xD800 + ((point - 0x10000) >> 10));
			out = put_unit(out, 0xDC00 + ((point - 0x10000) & 0x3FF));
		}
	}
}

static bool is_dash_place(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

static void uuid_format(const uint8_t octets[16], char out[UUID_SIZE])
{
	char hex[33];
	hex_encode(bytes_of(octets, 16), hex);
	for (size_t i = 0, at = 0; i < UUID_SIZE - 1; i++)
		out[i] = is_dash_place(i) ? '-' : hex[at++];
	out[UUID_SIZE - 1] = '\0';
}

void uuid_random(char out[UUID_SIZE])
{
	uint8_t octets[16];
	random_bytes(octets, sizeof octets);
	octets[6] = (uint8_t)((octets[6] & 0x0F) | 0x40);
	octets[8] = (uint8_t)((octets[8] & 0x3F) | 0x80);
	uuid_format(octets, out);
}

bool uuid_valid(const char *text)
{
	if (text == NULL)
		return false;
	size_t i = 0;
	for (; text[i] != '\0'; i++) {
		bool fits = is_dash_place(i) ? text[i] == '-' : (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
		if (i >= UUID_SIZE - 1 || !fits)
			return false;
	}
	return i == UUID_SIZE - 1;
}

/* Where each octet of the text form lies in objectGUID: Data1, Data2 and Data3 are little-endian (MS-DTYP 2.3.4.2). */
static const uint8_t guid_order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

void guid_format(const uint8_t guid[16], char out[UUID_SIZE])
{
	uint8_t octets[16];
	for (size_t i = 0; i < 16; i++)
		octets[i] = guid[guid_order[i]];
	uuid_format(octets, out);
}

enum status guid_parse(const char *text, uint8_t out[16])
{
	if (!uuid_valid(text))
		return STATUS_LOCAL_INPUT;
	for (size_t i = 0, at = 0; i < 16; i++, at += 2) {
		if (text[at] == '-')
			at++;
		out[guid_order[i]] = (uint8_t)(hex_value((uint8_t)text[at]) << 4 | hex_value((uint8_t)text[at + 1]));
	}
	return STATUS_OK;
}

void random_bytes(void *out, size_t size)
{
	/* Nothing may go on with numbers that can be guessed. */
	uint8_t *at = out;
	while (size > 0) {
		int part = size > 1 << 20 ? 1 << 20 : (int)size;
		if (RAND_bytes(at, part) != 1)
			abort();
		at += part;
		size -= (size_t)part;
	}
}

void sha256(struct bytes in, uint8_t out[32])
{
	if (EVP_Digest(in.size == 0 ? (const void *)"" : in.data, in.size, out, NULL, EVP_sha256(), NULL) != 1)
		abort();
}
