#include "config/value.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *name;
	int64_t factor;
};

/* From the largest, so that formatting takes the first that divides. */
static const struct unit duration_units[] = { { "d", 86400000 }, { "h", 3600000 }, { "min", 60000 }, { "s", 1000 }, { "ms", 1 }, { 0 } };
static const struct unit size_units[] = { { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 }, { "", 1 }, { 0 } };
static const struct unit no_units[] = { { "", 1 }, { 0 } };

static const struct {
	const struct unit *units;
	const char *wanted;
} numbers[] = {
	[CONFIG_INT] = { no_units, "a whole number" },
	[CONFIG_DURATION_MS] = { duration_units, "a whole number with a unit: 250ms, 10s, 5min, 2h or 30d" },
	[CONFIG_SIZE] = { size_units, "a whole number of bytes, or of KiB, MiB or GiB: 512, 64KiB, 16MiB" },
};

__attribute__((format(printf, 2, 3)))
static char *say(bool *ret_memory, const char *format, ...)
{
	char *text = NULL;
	va_list args;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0) {
		*ret_memory = true;
		text = NULL;
	}
	va_end(args);
	return text;
}

/* What is shown of a wrong value: short, so that a password in the wrong place does not go to a log as a whole, and on one line. */
static const char *shown(const char *text, size_t size, char out[24])
{
	size_t at = 0;
	for (size_t i = 0; i < size && at < 16; i++)
		out[at++] = text[i] >= ' ' && text[i] < 0x7F ? text[i] : '?';
	snprintf(out + at, 24 - at, "%s", size > 16 ? "..." : "");
	return out;
}

bool text_is_clean(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F)
			return false;
	return true;
}

/* ---- numbers ---- */

static bool take_digits(const char **text, int64_t *ret_value)
{
	bool negative = **text == '-';
	const char *at = *text + negative;
	if (*at < '0' || *at > '9')
		return false;
	int64_t value = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_sub_overflow(value, *at - '0', &value))
			return false;
	if (!negative && value == INT64_MIN)
		return false;
	*text = at;
	*ret_value = negative ? value : -value;
	return true;
}

static bool read_number(const struct unit *units, const char *text, int64_t *ret_value)
{
	int64_t value;
	if (!take_digits(&text, &value))
		return false;
	for (const struct unit *unit = units; unit->name != NULL; unit++)
		if (strcmp(unit->name, text) == 0)
			return !__builtin_mul_overflow(value, unit->factor, ret_value);
	return false;
}

static char *format_number(const struct unit *units, int64_t value)
{
	const struct unit *unit = units;
	while (value % unit->factor != 0 || (value == 0 && unit[1].name != NULL))
		unit++;
	char *text = NULL;
	return asprintf(&text, "%" PRId64 "%s", value / unit->factor, unit->name) < 0 ? NULL : text;
}

static char *parse_number(const struct config_key *key, const char *text, size_t size, int64_t *ret_value, bool *ret_memory)
{
	char sample[24];
	const struct unit *units = numbers[key->kind].units;
	int64_t value;
	if (strlen(text) != size || !read_number(units, text, &value))
		return say(ret_memory, "\"%s\" should be %s", shown(text, size, sample), numbers[key->kind].wanted);
	if (value >= key->min && (key->max == 0 || value <= key->max)) {
		*ret_value = value;
		return NULL;
	}
	char *low = format_number(units, key->min), *high = format_number(units, key->max), *what = NULL;
	if (low != NULL && high != NULL)
		what = key->max == 0 ? say(ret_memory, "%s is out of range; it should be %s or more", shown(text, size, sample), low)
		                     : say(ret_memory, "%s is out of range; it should be between %s and %s", shown(text, size, sample), low, high);
	else
		*ret_memory = true;
	free(low);
	free(high);
	return what;
}

/* ---- words ---- */

static char *parse_bool(const char *text, size_t size, bool *ret_value, bool *ret_memory)
{
	char sample[24];
	bool is_true = size == 4 && memcmp(text, "true", 4) == 0;
	if (!is_true && !(size == 5 && memcmp(text, "false", 5) == 0))
		return say(ret_memory, "\"%s\" should be true or false", shown(text, size, sample));
	*ret_value = is_true;
	return NULL;
}

static char *parse_choice(const struct config_key *key, const char *text, size_t size, int *ret_value, bool *ret_memory)
{
	int number = 0;
	for (const char *at = key->choices; at != NULL; number++) {
		size_t length = strcspn(at, "|");
		if (length == size && memcmp(at, text, size) == 0) {
			*ret_value = number;
			return NULL;
		}
		at = at[length] == '|' ? at + length + 1 : NULL;
	}
	char sample[24];
	return say(ret_memory, "\"%s\" should be one of %s", shown(text, size, sample), key->choices);
}

static char *format_choice(const struct config_key *key, int value)
{
	const char *at = key->choices;
	for (; value > 0 && at != NULL; value--) {
		at = strchr(at, '|');
		at = at == NULL ? NULL : at + 1;
	}
	return at == NULL ? NULL : strndup(at, strcspn(at, "|"));
}

static char *parse_string(const struct config_key *key, const char *text, size_t size, const char *folder, char **ret_value, bool *ret_memory)
{
	if (!text_is_clean(text, size))
		return say(ret_memory, "the value should not contain control characters or line breaks");
	if ((int64_t)size < key->min)
		return say(ret_memory, "the value is too short; it should have at least %" PRId64 " characters", key->min);
	if (key->max != 0 && (int64_t)size > key->max)
		return say(ret_memory, "the value is too long; it should have at most %" PRId64 " bytes", key->max);
	bool is_path = key->kind == CONFIG_PATH;
	if (is_path && (size == 0 || size >= PATH_MAX))
		return say(ret_memory, "the value should be the path of a file");
	char *value = say(ret_memory, "%s%s", is_path && text[0] != '/' ? folder : "", text);
	if (value != NULL) {
		free(*ret_value);
		*ret_value = value;
	}
	return NULL;
}

char *value_parse(const struct config_key *key, const char *text, size_t size, const char *folder, void *member, bool *ret_memory)
{
	switch (key->kind) {
	case CONFIG_STRING:
	case CONFIG_PATH:
		return parse_string(key, text, size, folder, member, ret_memory);
	case CONFIG_BOOL:
		return parse_bool(text, size, member, ret_memory);
	case CONFIG_INT:
	case CONFIG_DURATION_MS:
	case CONFIG_SIZE:
		return parse_number(key, text, size, member, ret_memory);
	case CONFIG_CHOICE:
		return parse_choice(key, text, size, member, ret_memory);
	case CONFIG_STRINGS:
	case CONFIG_LIST:
		break;
	}
	return say(ret_memory, "should be a list");
}

/* ---- back to text ---- */

static void print_string(FILE *out, const char *text)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+";
	if (text[0] != '\0' && text[0] != '-' && text[strspn(text, safe)] == '\0') {
		fputs(text, out);
		return;
	}
	putc('"', out);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		putc(*text, out);
	}
	putc('"', out);
}

static char *format_strings(const char *const *items, size_t count, bool list)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return NULL;
	if (list)
		putc('[', out);
	for (size_t i = 0; i < count; i++) {
		fputs(i == 0 ? "" : ", ", out);
		print_string(out, items[i]);
	}
	if (list)
		putc(']', out);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

char *value_format(const struct config_key *key, const void *member)
{
	const char *string;
	const struct config_strings *strings = member;
	switch (key->kind) {
	case CONFIG_STRING:
	case CONFIG_PATH:
		string = *(char *const *)member;
		return string == NULL ? NULL : format_strings(&string, 1, false);
	case CONFIG_BOOL:
		return strdup(*(const bool *)member ? "true" : "false");
	case CONFIG_INT:
	case CONFIG_DURATION_MS:
	case CONFIG_SIZE:
		return format_number(numbers[key->kind].units, *(const int64_t *)member);
	case CONFIG_CHOICE:
		return format_choice(key, *(const int *)member);
	case CONFIG_STRINGS:
		return format_strings((const char *const *)strings->items, strings->count, true);
	case CONFIG_LIST:
		break;
	}
	return NULL;
}
