#include "proto/jose_internal.h"

#include <errno.h>
#include <string.h>

#define MAX_DEPTH 32

/* jansson recurses, so the depth is bounded before it; what is unbalanced here jansson refuses anyway. */
static bool is_shallow(struct bytes text)
{
	unsigned depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < text.size; i++) {
		uint8_t c = text.data[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > MAX_DEPTH)
				return false;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}

json_t *jose_json_parse(struct bytes text)
{
	errno = 0;
	if (text.size == 0 || !is_shallow(text))
		return NULL;
	/* No json_error_t: its text quotes what stands near the error, which may be a password. */
	return json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, NULL);
}

bool jose_split(struct bytes text, struct bytes *parts, unsigned count)
{
	const uint8_t *from = text.data, *end = text.data + text.size;

	if (text.size == 0)
		return false;
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *dot = memchr(from, '.', (size_t)(end - from));

		if ((dot == NULL) != (i == count - 1))
			return false;
		parts[i] = bytes_of(from, (size_t)((dot ? dot : end) - from));
		from = dot ? dot + 1 : end;
	}
	return true;
}

enum jose_reason jose_decode(struct bytes part, uint8_t *out, size_t capacity, size_t *ret_size, enum jose_reason too_long)
{
	if (part.size > BASE64URL_SIZE(capacity))
		return too_long;
	return base64url_decode(part, out, capacity, ret_size) == STATUS_OK ? JOSE_OK : JOSE_BASE64;
}

enum jose_reason jose_header(struct bytes part, json_t **ret_header)
{
	uint8_t text[JOSE_MAX_HEADER];
	size_t size = 0;
	enum jose_reason reason = jose_decode(part, text, sizeof(text), &size, JOSE_HEADER);

	*ret_header = NULL;
	if (reason != JOSE_OK)
		return reason;
	json_t *header = jose_json_parse(bytes_of(text, size));
	if (!json_is_object(header)) {
		reason = !header && errno == ENOMEM ? JOSE_INTERNAL : JOSE_HEADER;
		json_decref(header);
		return reason;
	}
	*ret_header = header;
	return JOSE_OK;
}

bool jose_member_is(const json_t *object, const char *name, const char *value)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text && strcmp(text, value) == 0;
}
