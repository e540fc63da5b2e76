#include "agent/directory/ppolicy.h"

#include <string.h>

enum { TAG_SEQUENCE = 0x30, TAG_WARNING = 0xA0, TAG_ERROR = 0x81, TAG_EXPIRES = 0x80, TAG_GRACE = 0x81, LONG_FORM = 0x80, LENGTH_OCTETS_MAX = 4, NUMBER_OCTETS_MAX = 4 };

/* Takes one element off the front of `from`. */
static bool take_element(struct bytes *from, unsigned *ret_tag, struct bytes *ret_content)
{
	size_t at = 2, size;
	if (from->size < 2) {
		return false;
	}
	size = from->data[1];
	if (size & LONG_FORM) {
		size_t octets = size & ~(size_t)LONG_FORM;
		if (octets == 0 || octets > LENGTH_OCTETS_MAX || from->size < at + octets) {
			return false;
		}
		for (size = 0; octets > 0; octets--) {
			size = size << 8 | from->data[at++];
		}
	}
	if (size > from->size - at) {
		return false;
	}
	*ret_tag = from->data[0];
	*ret_content = bytes_of(from->data + at, size);
	*from = bytes_of(from->data + at + size, from->size - at - size);
	return true;
}

/* Never negative here. */
static bool read_number(struct bytes content, int64_t *ret_value)
{
	if (content.size == 0 || content.size > NUMBER_OCTETS_MAX || content.data[0] & 0x80) {
		return false;
	}
	*ret_value = 0;
	for (size_t i = 0; i < content.size; i++) {
		*ret_value = *ret_value << 8 | content.data[i];
	}
	return true;
}

static bool read_warning(struct bytes content, struct ppolicy_answer *answer)
{
	unsigned tag;
	struct bytes number;
	if (!take_element(&content, &tag, &number) || content.size > 0) {
		return false;
	}
	return tag == TAG_EXPIRES ? read_number(number, &answer->expires_in_s) : tag == TAG_GRACE && read_number(number, &answer->grace);
}

static bool read_members(struct bytes members, struct ppolicy_answer *answer)
{
	unsigned tag, last = 0;
	struct bytes content;
	int64_t error;
	while (members.size > 0) {
		if (!take_element(&members, &tag, &content)) {
			return false;
		}
		if (tag == TAG_WARNING && last == 0) {
			if (!read_warning(content, answer)) {
				return false;
			}
		} else if (tag == TAG_ERROR && last != TAG_ERROR) {
			if (!read_number(content, &error)) {
				return false;
			}
			answer->error = (int)error;
		} else {
			return false;
		}
		last = tag;
	}
	return true;
}

enum status ppolicy_parse(struct bytes value, struct ppolicy_answer *ret_answer)
{
	static const struct ppolicy_answer NOTHING = { -1, -1, -1 };
	unsigned tag;
	struct bytes members;
	*ret_answer = NOTHING;
	if (take_element(&value, &tag, &members) && tag == TAG_SEQUENCE && value.size == 0 && read_members(members, ret_answer)) {
		return STATUS_OK;
	}
	*ret_answer = NOTHING;
	return STATUS_LOCAL_INPUT;
}

bool ppolicy_find(LDAPControl *const *controls, struct ppolicy_answer *ret_answer)
{
	for (size_t i = 0; controls != NULL && controls[i] != NULL; i++) {
		const struct berval *value = &controls[i]->ldctl_value;
		if (strcmp(controls[i]->ldctl_oid, PPOLICY_CONTROL) == 0 && value->bv_val != NULL) {
			return ppolicy_parse(bytes_of(value->bv_val, value->bv_len), ret_answer) == STATUS_OK;
		}
	}
	return false;
}
