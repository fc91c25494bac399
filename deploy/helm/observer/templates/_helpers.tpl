{{- define "observer.selector" -}}
app.kubernetes.io/name: observer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "observer.labels" -}}
{{ include "observer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "observer.account" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "observer.tls" -}}
{{ if and .Values.server.enabled .Values.server.tls.enabled }}true{{ end }}
{{- end }}

{{- define "observer.metricsAddress" -}}
{{ ternary .Values.metrics.address "127.0.0.1" .Values.metrics.enabled }}
{{- end }}

{{- /* The configuration: what the chart says by itself, then what `config` says besides. */ -}}
{{- define "observer.config" -}}
{{- $own := dict
    "cluster" .Values.cluster
    "local-namespaces" .Values.features.hostNames
    "metrics-server" (printf "%s:%v" (include "observer.metricsAddress" .) .Values.metrics.port)
    "policy-audit-mode" .Values.policy.auditOnly
    "policy-mode" .Values.policy.mode
}}
{{- with .Values.metrics.flows }}{{ $_ := set $own "metrics" . }}{{ end }}
{{- if .Values.server.enabled }}
{{- $_ := set $own "listen" (printf "%s:%v" .Values.server.address .Values.server.port) }}
{{- if include "observer.tls" . }}
{{- $_ := set $own "tls-cert-file" "/etc/observer-tls/tls.crt" }}
{{- $_ := set $own "tls-key-file" "/etc/observer-tls/tls.key" }}
{{- $_ := set $own "tls-client-ca-files" (list "/etc/observer-tls/ca.crt") }}
{{- else }}
{{- $_ := set $own "insecure" true }}
{{- end }}
{{- end }}
{{- range $key, $value := merge $own .Values.config }}
{{ $key }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toRawJson $value }}{{ end }}
{{- end }}
{{- end }}
