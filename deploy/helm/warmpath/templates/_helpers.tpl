{{- define "warmpath.name" -}}
{{- if contains "warmpath" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-warmpath" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "warmpath.selector" -}}
app.kubernetes.io/name: warmpath
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "warmpath.labels" -}}
{{ include "warmpath.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "warmpath.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "warmpath.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* warmpath.toml: the listeners, what the values say, the fleet. Strings are quoted as JSON, which TOML reads alike. */}}
{{- define "warmpath.toml" -}}
[server]
listen = "0.0.0.0:{{ .Values.ports.grpc }}"
http_listen = "0.0.0.0:{{ .Values.ports.http }}"
admin_listen = "0.0.0.0:{{ .Values.ports.admin }}"
{{ range $section, $settings := .Values.config }}
{{- if kindIs "map" $settings }}
[{{ $section }}]
{{ include "warmpath.settings" $settings }}
{{ else }}
{{- range $settings }}
[[{{ $section }}]]
{{ include "warmpath.settings" . }}
{{ end }}
{{- end }}
{{- end }}
{{- range $kind, $sources := .Values.discovery }}
{{- range $sources }}
[[discovery.{{ $kind }}]]
{{ include "warmpath.settings" . }}
{{ end }}
{{- end }}
{{- range .Values.instances }}
[[instances]]
{{ include "warmpath.settings" . }}
{{ end }}
{{- end }}

{{/* What the router reads again by itself when the ConfigMap changes is not in here: it must not start new pods. */}}
{{- define "warmpath.fixed" -}}
{{ toJson .Values.ports }}{{ toJson (omit .Values.config "http" "discovery" "reload") }}
{{- end }}

{{- define "warmpath.settings" -}}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}
{{ $key }} = { {{- $first := true }}{{ range $k, $v := $value }}{{ if not $first }},{{ end }} {{ $k }} = {{ toJson $v }}{{ $first = false }}{{ end }} }
{{- else if kindIs "float64" $value }}
{{ $key }} = {{ if eq $value (floor $value) }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}
{{- else }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
