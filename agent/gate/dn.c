#include <string.h>

#include "agent/gate/letters.h"
#include "agent/gate/scope.h"

/* One attribute and value of a name, decoded. A name is compared by these and never by its text: "CN=a\,OU=People,DC=x" ends like "OU=People,DC=x" and is not below it. */
struct assertion {
	unsigned rdn;
	struct bytes type, value;
};

struct name {
	uint8_t *text;               /* decoded types and values */
	size_t used;
	struct assertion *assertions;
	size_t count;
	unsigned rdns;
};

static void name_clear(struct name *name)
{
	free(name->text);
	free(name->assertions);
}
#define AUTO_NAME __attribute__((cleanup(name_clear)))

static const char *skip_blanks(const char *at)
{
	return at + strspn(at, " ");
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A short name as directories print it. Numeric object identifiers are not taken: "2.5.4.11" could not be seen to equal "OU". */
static bool read_type(struct name *name, const char **at, struct bytes *ret_type)
{
	const char *from = *at;
	while (is_letter(**at) || (*at > from && ((**at >= '0' && **at <= '9') || **at == '-')))
		(*at)++;
	*ret_type = bytes_of(name->text + name->used, (size_t)(*at - from));
	memcpy(name->text + name->used, from, (size_t)(*at - from));
	name->used += (size_t)(*at - from);
	return *at > from;
}

/* Behind a backslash: two hexadecimal digits or one special character, RFC 4514 section 2.4. */
static bool read_escape(const char **at, uint8_t *ret_octet)
{
	size_t size;
	if ((*at)[0] && (*at)[1] && hex_decode(bytes_of(*at, 2), ret_octet, 1, &size) == STATUS_OK) {
		*at += 2;
		return true;
	}
	if (!**at || !strchr(" \"#+,;<=>\\", **at))
		return false;
	*ret_octet = (uint8_t)*(*at)++;
	return true;
}

/* RFC 1779's quoted form, which RFC 4514 lets a reader take. */
static bool read_quoted(struct name *name, const char **at)
{
	for ((*at)++; **at && **at != '"'; name->used++) {
		if (**at != '\\') {
			name->text[name->used] = (uint8_t)*(*at)++;
			continue;
		}
		(*at)++;
		if (!read_escape(at, &name->text[name->used]))
			return false;
	}
	if (**at != '"')
		return false;
	*at = skip_blanks(*at + 1);
	return true;
}

/* Up to a separator, less the blanks before it; an escaped blank is part of the value. */
static bool read_plain(struct name *name, const char **at)
{
	size_t end = name->used;
	while (**at && **at != ',' && **at != '+') {
		bool escaped = **at == '\\';
		if (escaped) {
			(*at)++;
			if (!read_escape(at, &name->text[name->used]))
				return false;
		} else {
			if (strchr("\"<>;", **at))
				return false;
			name->text[name->used] = (uint8_t)*(*at)++;
		}
		if (escaped || name->text[name->used] != ' ')
			end = name->used + 1;
		name->used++;
	}
	name->used = end;
	return true;
}

/* The "#" form (BER in hexadecimal) is not taken: Active Directory prints none for the attributes that name objects. */
static bool read_value(struct name *name, const char **at, struct bytes *ret_value)
{
	size_t from = name->used;
	if (**at == '#' || !(**at == '"' ? read_quoted(name, at) : read_plain(name, at)))
		return false;
	*ret_value = bytes_of(name->text + from, name->used - from);
	return ret_value->size && utf8_valid(*ret_value);
}

static bool read_assertion(struct name *name, const char **at)
{
	struct assertion *assertion = &name->assertions[name->count];
	*at = skip_blanks(*at);
	if (!read_type(name, at, &assertion->type))
		return false;
	*at = skip_blanks(*at);
	if (*(*at)++ != '=')
		return false;
	*at = skip_blanks(*at);
	assertion->rdn = name->rdns;
	name->count++;
	return read_value(name, at, &assertion->value);
}

static bool name_parse(const char *text, struct name *name)
{
	size_t separators = 0;
	for (const char *at = text; *at; at++)
		separators += *at == ',' || *at == '+';
	/* Decoding only shortens, and each assertion but the first stands behind a separator. */
	name->text = malloc(strlen(text) + 1);
	name->assertions = calloc(separators + 1, sizeof *name->assertions);
	if (!name->text || !name->assertions)
		return false;
	for (const char *at = text;;) {
		if (!read_assertion(name, &at))
			return false;
		name->rdns += *at != '+';
		if (!*at)
			return true;
		if (*at != ',' && *at != '+')
			return false;
		at++;
	}
}

static bool equal_folded(struct bytes a, struct bytes b)
{
	size_t i = 0, j = 0;
	while (i < a.size && j < b.size) {
		if (letter_fold(utf8_next(a, &i)) != letter_fold(utf8_next(b, &j)))
			return false;
	}
	return i == a.size && j == b.size;
}

static bool rdn_has(const struct name *name, size_t from, unsigned rdn, const struct assertion *wanted)
{
	for (size_t i = from; i < name->count && name->assertions[i].rdn == rdn; i++) {
		if (equal_folded(name->assertions[i].type, wanted->type) && equal_folded(name->assertions[i].value, wanted->value))
			return true;
	}
	return false;
}

/* Every assertion of the RDN of `a` that begins at `from` stands in that of `b`. */
static bool rdn_within(const struct name *a, size_t from, const struct name *b, size_t b_from)
{
	for (size_t i = from; i < a->count && a->assertions[i].rdn == a->assertions[from].rdn; i++) {
		if (!rdn_has(b, b_from, b->assertions[b_from].rdn, &a->assertions[i]))
			return false;
	}
	return true;
}

static size_t rdn_begin(const struct name *name, unsigned rdn)
{
	size_t i = 0;
	while (i < name->count && name->assertions[i].rdn < rdn)
		i++;
	return i;
}

bool dn_is_below(const char *dn, const char *base)
{
	AUTO_NAME struct name name = { 0 };
	AUTO_NAME struct name top = { 0 };
	if (!dn || !base || !name_parse(dn, &name) || !name_parse(base, &top) || top.rdns > name.rdns)
		return false;
	for (unsigned rdn = 0; rdn < top.rdns; rdn++) {
		size_t a = rdn_begin(&name, name.rdns - top.rdns + rdn), b = rdn_begin(&top, rdn);
		if (!rdn_within(&name, a, &top, b) || !rdn_within(&top, b, &name, a))
			return false;
	}
	return true;
}

bool dn_valid(const char *dn)
{
	AUTO_NAME struct name name = { 0 };
	return dn && name_parse(dn, &name);
}
