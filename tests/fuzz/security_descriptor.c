/* An nTSecurityDescriptor as a server may send it, and the questions that are put to it. */
#include <string.h>

#include "agent/directory/security_descriptor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t GUID[16] = { 0xb8, 0x9d, 0xcd, 0x3b };
	struct sid user = { 12, { 1, 1, 0, 0, 0, 0, 0, 1 } };
	struct security_descriptor descriptor;
	enum status status = security_descriptor_read(bytes_of(data, size), &descriptor);
	if (status != STATUS_OK && (descriptor.open || descriptor.aces.size > 0 || descriptor.owner.size > 0)) {
		abort();
	}
	struct access_token token = { &user, 1, &user };
	struct access_wanted wanted[] = { { ACCESS_CONTROL, GUID, NULL, NULL }, { ACCESS_WRITE_PROPERTY, GUID, GUID, NULL }, { ACCESS_READ_PROPERTY, NULL, NULL, GUID } };
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		enum access access = security_descriptor_check(&descriptor, &token, &wanted[i]);
		if (status != STATUS_OK && access != ACCESS_NONE) {
			abort();
		}
	}
	security_descriptor_forbids_change(&descriptor, &user);
	return 0;
}
