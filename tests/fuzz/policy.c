/* The password policy: password, sAMAccountName and displayName on lines of their own, and the whole input as a diagnostic text. */
#include <stdlib.h>
#include <string.h>

#include "agent/gate/policy.h"
#include "base/nfc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct password_policy policy = { .source = POLICY_PSO, .min_length = 8, .complexity = true, .history = 3, .min_age_s = 10 };
	AUTO_FREE char *text = strndup((const char *)data, size);
	struct rule rules[MAX_RULES];
	size_t count;
	if (!text)
		abort();
	enum status hint = policy_hint(text);
	char *rest = text, *password = strsep(&rest, "\n"), *sam = strsep(&rest, "\n"), *display = strsep(&rest, "\n");
	struct account account = { .sam_account_name = sam, .display_name = display, .pwd_last_set_s = 95 };
	if (policy_password_form(bytes_of_string(password)) != STATUS_OK)
		return 0;
	bool is_nfc;
	if (nfc_check(bytes_of_string(password), &is_nfc) != STATUS_OK)
		abort();
	enum status judged = policy_judge(&policy, &account, bytes_of_string(password), size & 1, 100, rules, &count);
	if ((judged == STATUS_OK) != (count == 0) || count > MAX_RULES)
		abort();
	if (policy_diagnose(&policy, &account, bytes_of_string(password), size & 1, hint, 100, rules, &count) == STATUS_OK || count > MAX_RULES)
		abort();
	return 0;
}
